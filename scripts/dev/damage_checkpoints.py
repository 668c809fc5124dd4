#!/usr/bin/env python3
"""Check that no damaged checkpoint is loaded.

    scripts/dev/damage_checkpoints.py                    10,000 times
    mpirun -n 2 scripts/dev/damage_checkpoints.py 1_000_000

Flips bits of a small checkpoint and of its manifest, cuts off, zeroes, loses, moves and
adds bytes, and puts other and older files in their place: one damage at a time, each
read by the package as any checkpoint. Each must be found, and the error must name the
file. Ranks share the work. The exit status is 1 if a damage is missed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "harness")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("times", type=int, nargs="?", default=10_000)
    parser.add_argument("--folder", default="/dev/shm", help="default: /dev/shm")
    times, folder = vars(parser.parse_args()).values()

    import damage_runs
    from mpi4py import MPI

    comm, began_s = MPI.COMM_WORLD, time.monotonic()
    share = (comm.rank, comm.size)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        counts = damage_runs.check(own, MPI.COMM_SELF, times, share)
    everyones = comm.gather(counts, root=0)
    if comm.rank == 0:
        totals = {name: sum(c[name] for c in everyones) for name in counts}
        for name, total in totals.items():
            print(f"{name}: {total:,}")
        seconds = time.monotonic() - began_s
        print(f"{sum(totals.values()):,} damages, all found; {seconds:.0f} s")


if __name__ == "__main__":
    main()
