#!/usr/bin/env python
"""Time of small sums through a node's shared memory, compared with MPI.

    mpirun -n 2 python scripts/bench/node_sums.py [--rounds 20]

Both sides take turns. Figures are the slowest rank's microseconds per call, medians
over the rounds, with warm caches on both sides. A control message is 4 float64.
"""

import argparse
import statistics
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.comm import node_sums
from pympi_train.comm.collectives import reduced

SIZES = (16, 256, 1001, 4096, 7850, 16384, 32768, 65536)  # of float32 gradients
CALLS = 200  # per round


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with pt.Ranks() as ranks:
        shared = node_sums.node_sums(ranks.comm)
        if shared is None:
            raise SystemExit("these ranks do not share a node, or its memory is full")
        if ranks.rank == 0:
            print(f"{ranks.size} ranks, blocks of at most {shared.most_bytes} bytes")
            print("control and so many float32    node     MPI   MPI / node, by round")
        for size in SIZES:
            if node_sums.fits(ranks.comm, np.zeros(size, np.float32)):
                line = compare(ranks.comm, size, rounds)
                if ranks.rank == 0:
                    print(line, flush=True)


def compare(comm, size, rounds):
    from mpi4py import MPI

    control, block = np.zeros(4), np.zeros(size, np.float32)

    def by_node():
        node_sums.reduce(comm, control, block)

    def by_mpi():
        comm.Allreduce(MPI.IN_PLACE, control, op=MPI.SUM)
        comm.Allreduce(MPI.IN_PLACE, block, op=MPI.SUM)

    seconds = [(timed(comm, by_node), timed(comm, by_mpi)) for _ in range(rounds)]
    node, mpi = reduced(comm, np.transpose(seconds), op="MAX").tolist()
    ratios = [b / a for a, b in zip(node, mpi)]
    return (
        f"{size:27} {1e6 * statistics.median(node):7.1f} "
        f"{1e6 * statistics.median(mpi):7.1f}   {statistics.median(ratios):.2f}  "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def timed(comm, call):
    comm.Barrier()
    began_s = perf_counter()
    for _ in range(CALLS):
        call()
    return (perf_counter() - began_s) / CALLS


if __name__ == "__main__":
    main()
