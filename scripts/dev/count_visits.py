#!/usr/bin/env python3
"""Check a hundred million visits of rows: each row once an epoch, on 1 to 4 ranks.

    scripts/dev/count_visits.py [FOLDER] [--rows 1000003] [--epochs 2]

Trains the cases of tests/harness/visits.py, with logs of 8 bytes a visit in a new
folder in FOLDER (the system's temporary folder), which is then removed. The exit status
is 1 if a row was missed or visited twice. Run it with the Python of an environment that
has the extra `test`, and an MPI library.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[2] / "tests" / "harness"
sys.path.insert(0, str(HARNESS))


def main():
    import visits
    from mpi_launch import mpirun

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rows", type=int, default=1_000_003)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=20_000)
    args = parser.parse_args()
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        visits.make(Path(folder), args.rows)
        for size in (1, 2, 3, 4):
            argv = [sys.executable, visits.__file__, "train", folder]
            argv += ["--rows", args.rows, "--epochs", args.epochs]
            argv += ["--batch-size", args.batch_size]
            done = mpirun(size, list(map(str, argv)), timeout=1800)
            if done.returncode:
                sys.exit(f"on {size} ranks the trainings failed\n{done.stderr}")
        found = visits.check(Path(folder), args.rows, args.epochs)
    seconds = time.perf_counter() - started_s
    print(
        f"{found['visits']:,} visits in {found['logs']} epochs of trainings, "
        f"{seconds:.0f} s"
    )
    print("\n".join(found["problems"]) or "each row was visited once an epoch")
    return bool(found["problems"])


if __name__ == "__main__":
    sys.exit(main())
