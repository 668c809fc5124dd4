#!/usr/bin/env python
"""A rank's work in Python by the number of ranks, from 10 to 100,000.

The communicator is a mock whose collectives return at once, so that only the program's
own work is timed: bookkeeping, tables of ranks, and the pickles that an allgather of
objects unpacks. Prints seconds and peak bytes of each piece, the exponent of their
growth between the last two numbers of ranks, and the file that does the work.

    python scripts/bench/design_at_scale.py [--sizes P,P,...] [--only TEXT]
"""

import argparse
import gc
import math
import operator
import pickle
import time
import tracemalloc

import numpy as np

N = 2**20  # parameters
NODE = 64  # ranks a node
CATEGORIES = [f"category {i}" for i in range(20)]
CASES = []  # (when, name, file, function of the number of ranks)


class Request:
    """A request that is over."""

    def Wait(self):
        pass


class Mock:
    """A communicator of rank 1 of ``size``; every rank passes what this rank does."""

    rank = 1

    def __init__(self, size):
        self.size, self.n_bytes = size, 0

    def _silent(self, *args, **kwargs):
        return Request()

    Allreduce = Allgatherv = Alltoallv = Bcast = Barrier = _silent
    Reduce_scatter = Ialltoallv = Iallgatherv = Iallreduce = Free = _silent

    def Allgather(self, own, everyones):
        everyones[...] = own

    def allgather(self, value):
        text = pickle.dumps(value)
        self.n_bytes += self.size * len(text)
        return [pickle.loads(text) for _ in range(self.size)]

    def allreduce(self, value, op=None):
        return value

    def bcast(self, value, root=0):
        return value

    def Split_type(self, *args, **kwargs):
        return Mock(min(self.size, NODE))

    Dup = Split = Split_type


def case(when, name, file):
    """Return a decorator that adds ``make(size)``, which returns what to time."""

    def add(make):
        CASES.append((when, name, file, make))
        return make

    return add


def layout():
    from pympi_train.flat.memory import Layout, Tensor

    return Layout([Tensor("w", (N // 1024, 1024)), Tensor("b", (1024,))], "float32")


@case("step", "control message", "comm/control.py")
def control(size):
    from pympi_train.comm.control import Control

    message = Control(Mock(size))
    return lambda: message.exchange(1.0, 2.0)


@case("step", "control message, exact", "comm/control.py")
def slots(size):
    from pympi_train.comm.control import SlotControl
    from pympi_train.comm.sums.tree import total

    message = SlotControl(Mock(size), (3, size))

    def step():
        message.slots[:] = 0.0
        found, _ = message.exchange()
        total(found[:2].T)

    return step


@case("step", "checks.together", "comm/checks.py")
def together(size):
    from pympi_train.comm.checks import raise_together

    comm = Mock(size)
    return lambda: raise_together(comm, None)


@case("second", "watchdog: one look", "comm/watch/watchdog.py")
def watchdog(size):
    from pympi_train.comm.watch.journal import WIDTH
    from pympi_train.comm.watch.watchdog import Ages

    table = np.zeros((min(size, NODE), WIDTH), np.int64)
    ages = Ages(table)
    return lambda: ages.look(table, 1.0)


@case("step", "allreduce", "comm/collectives.py")
def allreduce(size):
    from pympi_train.comm.collectives import sum_in_place

    comm, block = Mock(size), np.zeros(N, np.float32)
    return lambda: sum_in_place(comm, block)


@case("step", "reduce-scatter and allgather, sharded", "comm/collectives.py")
def sharded(size):
    from pympi_train.comm.collectives import all_gather, reduce_scatter
    from pympi_train.parallel.sharded.partition import Partition

    part = Partition(layout(), (), size, 1)
    comm, (counts,) = Mock(size), part.counts
    block = np.zeros(part.sizes[0], np.float32)
    own = np.zeros(counts[1], np.float32)
    counts.calls

    def step():
        reduce_scatter(comm, block, counts, own)
        all_gather(comm, block, counts)

    return step


@case("step", "sum by slices", "comm/sums/by_slices.py")
def by_slices(size):
    from pympi_train.comm.sums.by_slices import sum_by_slices

    comm, block = Mock(size), np.zeros(N, np.float32)
    return lambda: sum_by_slices(comm, block)


@case("step", "sum in int8", "comm/sums/compress.py")
def compressed(size):
    from pympi_train.backends.numpy import ops
    from pympi_train.comm.sums.compress import compressed_sum

    wire = compressed_sum("int8", Mock(size), layout(), ops)
    block = ops.zeros(layout().size, np.dtype("float32"))
    return lambda: wire.sum(block)


@case("step", "exact sum, a group a rank", "comm/sums/tree.py")
def tree(size):
    from pympi_train.comm.sums.tree import TreeSum

    summed, block = TreeSum(Mock(size), size), np.zeros(N, np.float32)
    present = np.ones(size, bool)
    return lambda: summed.sum([block], present, block)


@case("step", "sparse columns: counts", "comm/sums/columns.py")
def columns(size):
    comm = Mock(size)

    def step():
        found = np.zeros(size, np.int64)
        comm.Allgather(np.array([7], np.int64), found)
        return int(found.sum())

    return step


@case("step", "batch of an epoch", "data/epoch.py")
def batch(size):
    from pympi_train.data.epoch import EpochPlan

    plan = EpochPlan(1000 * size, 0, 0, 1000, 2000, 32 * size)
    state = iter(list(range(plan.n_batches)) * 10)
    return lambda: plan.batch(next(state))


@case("epoch", "plan of an epoch", "data/epoch.py")
def epoch(size):
    from pympi_train.data.epoch import EpochPlan

    return lambda: EpochPlan(1000 * size, 0, 0, 1000, 2000, 32 * size).batch(0)


@case("epoch", "cuts of own groups, exact", "data/groups.py")
def groups(size):
    from pympi_train.data.groups import own_cuts

    return lambda: own_cuts(1000 * size, 2 * size, 1, size)


@case("start", "equal settings (Trainer, fit, Ranks)", "comm/checks.py")
def settings(size):
    from pympi_train.comm.checks import require_all_equal

    comm, found = Mock(size), {f"setting {i}": i for i in range(20)}
    return lambda: require_all_equal(comm, found)


@case("start", "nodes of the ranks", "comm/mesh.py")
def nodes(size):
    from pympi_train.comm.mesh import Nodes

    return lambda: Nodes(Mock(size))


@case("start", "rows of each rank: bounds", "data/partition.py")
def rows(size):
    from pympi_train.data.partition import bounds

    return lambda: bounds(1000 * size, size)


@case("start", "rows agreed: Dataset.split", "data/sources/dataset.py")
def dataset(size):
    comm = Mock(size)
    return lambda: zip(*comm.allgather((1000, False)))


@case("start", "files: of_each", "data/formats/files.py")
def files(size):
    from pympi_train.data.formats.files import of_each

    comm, paths = Mock(size), [f"part-{i:05}.npy" for i in range(1000)]

    def call():
        mine = paths[1::size]
        found = [None] * len(paths)
        for rank, part in enumerate(comm.allgather(mine)):
            found[rank::size] = part[: len(found[rank::size])]

    assert of_each is not None
    return call


@case("start", "20 categories agreed", "data/formats/categories.py")
def categories(size):
    from pympi_train.data.formats.categories import in_order

    comm = Mock(size)
    return lambda: in_order(comm.allreduce(set(CATEGORIES), op=operator.or_))


@case("start", "strategy allreduce", "parallel/allreduce.py")
def make_allreduce(size):
    return _strategy(size, "pympi_train.parallel.allreduce", "Allreduce")


@case("start", "strategy local", "parallel/local.py")
def make_local(size):
    return _strategy(
        size, "pympi_train.parallel.local", "Local", local_steps=8, outer="mean"
    )


@case("start", "strategy sharded, stage 3", "parallel/sharded/partition.py")
def make_sharded(size):
    return _strategy(size, "pympi_train.parallel.sharded.strategy", "Sharded", stage=3)


@case("start", "strategy exact, a group a rank", "comm/sums/tree.py")
def make_exact(size):
    return _strategy(size, "pympi_train.parallel.exact", "Exact", n_groups=size)


def _strategy(size, module, name, **how):
    import importlib

    from pympi_train.backends.numpy import ops
    from pympi_train.optim.adam import Adam

    cls, made_of = getattr(importlib.import_module(module), name), layout()
    return lambda: cls(Mock(size), made_of, Adam(0.01), ops, **how)


@case("start", "pool: nodes, GPUs and memory", "pool/machine.py")
def machine(size):
    from pympi_train.pool.machine import machine_of

    return lambda: machine_of(Mock(size))


@case("change", "pool: order with its ranks, as text", "pool/mail.py")
def order(size):
    from pympi_train.pool.mail import spans

    return lambda: spans(list(range(size)))


@case("change", "pool: plan of one job (rank 0)", "pool/schedule.py")
def plan_job(size):
    from pympi_train.pool.room import Machine, Needs
    from pympi_train.pool.schedule import plan

    of_rank = [rank // NODE for rank in range(size)]
    pool = Machine(of_rank, [None] * size, [1e12] * (of_rank[-1] + 1))
    return lambda: plan(pool, set(range(size)), {"a": Needs(1, size)}, {})


@case("checkpoint", "who writes what", "checkpoint/shares.py")
def shares(size):
    from pympi_train.backends.numpy import ops
    from pympi_train.checkpoint.shares import own_share
    from pympi_train.flat.state import State, held

    state, whole = State(copies=False), layout()
    for name in ("params", "optimizer/m", "optimizer/v"):
        block = np.zeros(whole.size, whole.dtype)
        state.add(held(name, whole, block, ops))
    return lambda: own_share(Mock(size), state)


@case("checkpoint", "manifest of a sharded state (rank 0)", "checkpoint/manifest.py")
def written(size):
    from pympi_train.checkpoint import manifest

    content = manifest_of(size)
    return lambda: manifest.file_bytes(content)


@case("resume", "manifest of a sharded state read", "checkpoint/manifest.py")
def read(size):
    from pympi_train.checkpoint import manifest

    data = manifest.file_bytes(manifest_of(size))
    return lambda: manifest.content_of(data, "manifest.json")


def manifest_of(size):
    """Return a manifest in which each rank has a file with its slice of 3 tensors."""
    from pympi_train.checkpoint import manifest

    names = [f"rank-{rank:05}.safetensors" for rank in range(size)]
    about = {"n_bytes": N, "blake2b": "0" * 64}
    regions = [
        {"file": name, "box": [[i, i + 1], [0, 1024]], "key": f"w[{i}:{i + 1},0:1024]"}
        for i, name in enumerate(names)
    ]
    tensor = {"dtype": "float32", "shape": [size, 1024], "regions": regions}
    content = {name: {} for name in manifest.KEYS}
    blocks = "params", "optimizer/m", "optimizer/v"
    tensors = {f"{block}/w": tensor for block in blocks}
    files = {name: about for name in names}
    return content | {"format": manifest.FORMAT, "tensors": tensors, "files": files}


def measure(make, size):
    """Return (least seconds of a call, its peak bytes, bytes kept by what it uses)."""
    gc.collect()
    tracemalloc.start()
    call = make(size)
    call()  # what is cached, is cached
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 0.05 and len(seconds) < 30):
        began_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began_s)
    return min(seconds), max(peak - kept, 0), kept


def exponent(before, after, sizes):
    """Return b of ``after / before = (P2 / P1)^b``."""
    if before <= 0 or after <= 0:
        return 0.0
    return math.log(after / before) / math.log(sizes[1] / sizes[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10,100,1000,10000,100000")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    heads = ["when", "what", *(f"P = {p:,}" for p in sizes), "exponent"]
    heads += ["MB at most", "exponent", "file"]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for when, name, file, make in CASES:
        if args.only not in name:
            continue
        found = [measure(make, size) for size in sizes]
        ms = [f"{1e3 * seconds:.3g}" for seconds, _, _ in found]
        last = [(s, peak + kept) for s, peak, kept in found[-2:]]
        growth = [f"{exponent(*pair, sizes[-2:]):.2f}" for pair in zip(*last)]
        row = [when, name, *ms, growth[0], f"{last[-1][1] / 1e6:.1f}", growth[1], file]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
