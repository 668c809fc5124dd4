"""Seconds of the gradient exchange, beside MPI's own Allreduce on the same block."""

import statistics
from time import perf_counter

import numpy as np

from pympi_train.backends import numpy_ops
from pympi_train.backends.memory import Layout, Tensor
from pympi_train.comm import collectives
from pympi_train.comm.slices import sum_by_slices
from pympi_train.parallel.allreduce import Allreduce

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
        ``times_plain`` is from 1 says what can be told here at all.

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
    layout = Layout([Tensor("weight", (n,))], "float32")
    strategy = Allreduce(comm, layout, None, numpy_ops)
    strategy.measure()
    ways = _ways(comm, strategy, n)
    burst = max(1, min(BURST, BURST_BYTES // (4 * n)))
    history = _in_turn(comm, ways, burst, rounds)
    n_bytes, bus = 4 * n, 2 * (comm.size - 1) / comm.size
    told = {}
    for name, seconds in zip(ways, history.T):
        median = statistics.median(seconds.tolist())
        told[name] = {
            "median_s": median,
            "bytes_per_s": n_bytes / median,
            "bus_bytes_per_s": bus * n_bytes / median,
            "times_plain": float(np.median(seconds / history[:, 0])),
        }
    return {
        "bytes": n_bytes,
        "rounds": len(history),
        "exchange": strategy.chosen["exchange"],
        "ways": told,
    }


def _ways(comm, strategy, n):
    """Return the candidates by name, the plain call first."""
    from mpi4py import MPI

    block = strategy.grads[:n]  # without padding

    def plain():
        comm.Allreduce(MPI.IN_PLACE, block, op=MPI.SUM)

    return {
        "plain": plain,
        "allreduce": strategy.combine,
        "slices": lambda: sum_by_slices(comm, block),
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
