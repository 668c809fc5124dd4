#!/usr/bin/env python
"""Overhead in Python of a rank's calls, by the number of ranks.

The communicator is a mock that does nothing, so only the bookkeeping is timed. It
should not grow with the number of ranks, or be done only once.

    python scripts/bench/many_ranks.py [--sizes P,P,...]
"""

import argparse
import time

import numpy as np

from pympi_train.comm import collectives
from pympi_train.comm.sums.by_slices import piece_for
from pympi_train.data.epoch import EpochPlan
from pympi_train.flat.parts import even_cuts

N = 2**22  # parameters of the layer
REPEATS = 20


class Silent:
    """A communicator of rank 1 of ``size``, whose collectives return immediately."""

    def __init__(self, size):
        self.size, self.rank = size, 1

    def Allgatherv(self, *args):
        pass

    def Reduce_scatter(self, *args, **kwargs):
        pass


def milliseconds(call):
    """Return the milliseconds of the first call, and the median of the others."""
    seconds = []
    for _ in range(1 + REPEATS):
        began_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began_s)
    return 1e3 * seconds[0], 1e3 * sorted(seconds[1:])[REPEATS // 2]


def calls(size):
    """Yield (name, callable) for the operations of a rank in a step or an epoch."""
    comm, block = Silent(size), np.zeros(N, np.float32)
    cuts = even_cuts(0, N, size)
    counts = collectives.Counts(b - a for a, b in zip(cuts, cuts[1:]))
    own = np.zeros(counts[comm.rank], np.float32)
    yield "all_gather", lambda: collectives.all_gather(comm, block, counts)
    yield (
        "reduce_scatter",
        lambda: collectives.reduce_scatter(comm, block, counts, own),
    )
    n = 1000 * size
    plan = EpochPlan(n, 0, 0, 1000, 2000, 32 * size)
    batches = iter(range(plan.n_batches))
    yield "batch of an epoch", lambda: plan.batch(next(batches))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="4,1024,4096,100000")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    print(f"{'ranks':>8} {'call':18} {'first ms':>9} {'then ms':>9}")
    for size in sizes:
        for name, call in calls(size):
            first, then = milliseconds(call)
            print(f"{size:8} {name:18} {first:9.3f} {then:9.3f}")
        slices = piece_for(size) // size
        print(f"{size:8} {'a slice that travels':18} {slices} elements")


if __name__ == "__main__":
    main()
