"""Work in each step, second and epoch."""

import numpy as np
from design_cases.mock import NODE, Mock, N, case, layout


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
    from pympi_train.comm.watch.waiting import Ages

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


@case("step", "exact sum, a group a rank", "comm/sums/tree_sum.py")
def tree(size):
    from pympi_train.comm.sums.tree_sum import TreeSum

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
