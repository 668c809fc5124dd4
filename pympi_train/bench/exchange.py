"""Seconds of the gradient exchange, beside MPI's own Allreduce on the same block."""

import statistics
from functools import partial
from time import perf_counter

import numpy as np

from pympi_train.backends.memory import Layout, Tensor
from pympi_train.backends.select import select
from pympi_train.comm import collectives
from pympi_train.comm.mesh import Nodes
from pympi_train.errors import ConfigError
from pympi_train.optim.adam import Adam
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.choose import SUMS
from pympi_train.parallel.hierarchical import Hierarchical

SIZES = (4, 256, 2**12, 2**16, 2**20, 2**22, 25_000_000, 100_000_000, 400_000_000)
BUDGET_S = 3.0  # for one size
BURST_BYTES = 2**20  # small exchanges are timed so many bytes at once ...
BURST = 100  # ... but no more calls than that


def measure(comm, *, max_bytes=100_000_000, rounds=20, sizes=SIZES):
    """Time the sum of a float32 block over the ranks in all ways there are.

    Parameters
    ----------
    comm : MPI.Comm
    max_bytes : int
        Larger blocks of ``sizes`` are left out.
    rounds : int
        Most times that each way is timed; at least 3.
    sizes : sequence of int
        Bytes of the blocks.

    Returns
    -------
    dict
        ``ranks``, ``dtype``, ``library`` and ``sizes``: for each block its ``bytes``,
        the ``rounds``, the ``exchange`` that strategy allreduce chose, and ``ways``: by
        name, ``median_s`` of the slowest rank's seconds, ``bytes_per_s`` (of the block
        by the median), ``bus_bytes_per_s`` (what an ideal ring sends a rank for that,
        ``2 (P - 1) / P`` times as much) and ``times_plain``: the median over the rounds
        of its seconds by those of ``plain`` in the same round. ``plain`` is MPI's
        Allreduce in place, ``plain again`` the same once more: how far apart its
        ``times_plain`` is from 1 says what can be told here at all. ``updates``: the
        same of strategies with the update by Adam, since hierarchical sums while it
        updates; ``times_allreduce`` in place of ``times_plain``. Empty where no ranks
        share a node.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    All ways sum the same block. In each round another one is the first.
    """
    from mpi4py import MPI

    found = []
    for n_bytes in sizes:
        if n_bytes <= max_bytes:
            found.append(_measure_size(comm, n_bytes // 4, rounds))
    return {
        "ranks": comm.size,
        "dtype": "float32",
        "library": MPI.Get_library_version().splitlines()[0].strip("\0 "),
        "sizes": found,
    }


def _measure_size(comm, n, rounds):
    layout, ops = Layout([Tensor("weight", (n,))], "float32"), select("auto").ops
    strategy = Allreduce(comm, layout, None, ops)
    strategy.measure()
    ways = _timed(comm, _ways(comm, strategy, n), "plain", 4 * n, rounds)
    n_rounds = ways.pop("rounds")
    return {
        "bytes": 4 * n,
        "rounds": n_rounds,
        "exchange": strategy.chosen["exchange"],
        "ways": ways,
        "updates": _measure_updates(comm, layout, ops, rounds),
    }


def _measure_updates(comm, layout, ops, rounds):
    """Time exchange and update of the strategies that share a node."""
    nodes = Nodes(comm)
    nodes.free()
    if nodes.n_nodes == comm.size:
        return {}
    try:
        shared = Hierarchical(comm, layout, Adam(), ops)
    except ConfigError:  # too little shared memory
        return {}
    whole = Allreduce(comm, layout, Adam(), ops)
    whole.measure()
    calls = {"allreduce": _step(whole), "hierarchical": _step(shared)}
    found = _timed(comm, calls, "allreduce", layout.size * 4, rounds)
    shared.free()
    found.pop("rounds")
    return found


def _step(strategy):
    def step():
        strategy.combine()
        strategy.update(lr=1e-3, weight=1.0, l2=0.0)

    return step


def _timed(comm, ways, first, n_bytes, rounds):
    """Return what is told of each way, and the ``rounds``."""
    burst = max(1, min(BURST, BURST_BYTES // n_bytes))
    history = _in_turn(comm, ways, burst, rounds)
    bus = 2 * (comm.size - 1) / comm.size
    reference = history[:, list(ways).index(first)]
    found = {"rounds": len(history)}
    for name, seconds in zip(ways, history.T):
        median = statistics.median(seconds.tolist())
        found[name] = {
            "median_s": median,
            "bytes_per_s": n_bytes / median,
            "bus_bytes_per_s": bus * n_bytes / median,
            f"times_{first}": float(np.median(seconds / reference)),
        }
    return found


def _ways(comm, strategy, n):
    """Return the candidates by name, the plain call first."""
    from mpi4py import MPI

    block = strategy.grads[:n]  # without padding

    def plain():
        comm.Allreduce(MPI.IN_PLACE, block, op=MPI.SUM)

    return {
        "plain": plain,
        "allreduce": strategy.combine,
        **{way: partial(SUMS[way], comm, block) for way in ("pieces", "slices")},
        "plain again": plain,
    }


def _in_turn(comm, ways, burst, rounds):
    """Return the slowest rank's seconds of one call, shape (rounds, ways)."""
    names, history, spent_s = list(ways), [], 0.0
    for call in ways.values():  # connections, first touch of memory
        call()
    while len(history) < rounds and (len(history) < 3 or spent_s < BUDGET_S):
        first = len(history) % len(names)
        seconds = dict.fromkeys(names, 0.0)
        for name in names[first:] + names[:first]:
            call = ways[name]
            comm.Barrier()
            started = perf_counter()
            for _ in range(burst):
                call()
            seconds[name] = (perf_counter() - started) / burst
        slowest = collectives.reduced(comm, list(seconds.values()), op="MAX")
        history.append(slowest)
        spent_s += burst * float(slowest.sum())
    return np.array(history)
