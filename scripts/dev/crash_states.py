#!/usr/bin/env python3
"""Check that a checkpoint survives a loss of power at any moment.

    scripts/dev/crash_states.py                       a run on one rank
    mpirun -n 3 scripts/dev/crash_states.py           on three, which all write
    scripts/dev/crash_states.py --limit 2000          states for each moment, at most

Records the calls of a run that writes three checkpoints and removes one, and replays
them in a model of a file system (tests/harness/power_loss.py). In each state that a
disk may be left in, the newest checkpoint must be the last one that was written, or the
next one, whole; older ones that stay must be whole; and the next run must be able to
write another. Prints the number of different states; the exit status is 1 if one fails.
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
    parser.add_argument("--limit", type=int, default=400, help="default: 400")
    parser.add_argument("--folder", default="/dev/shm", help="default: /dev/shm")
    limit, folder = vars(parser.parse_args()).values()

    import crash_runs
    from mpi4py import MPI

    comm, began_s = MPI.COMM_WORLD, time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        recorded = Path(comm.bcast(own, root=0)) / "recorded"
        if comm.rank == 0:
            recorded.mkdir()
        comm.Barrier()
        events = crash_runs.record(recorded, comm)
        if comm.rank != 0:
            return
        (Path(own) / "states").mkdir()
        checker = crash_runs.Checker(Path(own) / "states", MPI.COMM_SELF)
        checker.check(events, limit)
    print(
        f"{comm.size} ranks, {len(events)} calls: {checker.n_states:,} states, all as "
        f"expected; {time.monotonic() - began_s:.0f} s"
    )


if __name__ == "__main__":
    main()
