#!/usr/bin/env python3
"""Record or compare the results of the trainings in tests/harness/recorded_runs.py.

    scripts/dev/record_runs.py                    writes recorded_runs.json
    scripts/dev/record_runs.py --against COMMIT   compares with the results of COMMIT

Prints the rows that differ. With --against, the exit status is 1 if there are any. Run
it with the Python of an environment that has the extras `test` and `fast`, and MPICH.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "recorded_runs.json"
sys.path.insert(0, str(ROOT / "tests" / "harness"))


def run(tree):
    """Return the table of results of the package in the folder ``tree``."""
    from mpi_launch import SAME_BITS, mpirun

    program = ROOT / "tests" / "harness" / "recorded_runs.py"
    argv = [sys.executable, "-m", "mpi4py", program]
    env = {**SAME_BITS, "PYTHONPATH": str(tree)}
    done = mpirun(3, argv, timeout=1800, env=env)
    if done.returncode:
        sys.exit(f"{tree}: the runs failed\n{done.stderr}")
    return json.loads(done.stdout)


def checked_out(commit, folder):
    """Extract the files of ``commit`` to ``folder``."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


def compare(found, recorded):
    """Print the rows that differ; return their number."""
    names = sorted(found.keys() | recorded.keys())
    odd = [name for name in names if found.get(name) != recorded.get(name)]
    for name in odd:
        print(f"{name}: {recorded.get(name)} -> {found.get(name)}")
    print(f"{len(odd)} of {len(names)} rows differ")
    return len(odd)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT")
    commit = parser.parse_args().against
    found = run(ROOT)
    if commit is not None:
        with tempfile.TemporaryDirectory() as folder:
            checked_out(commit, folder)
            return bool(compare(found["rows"], run(folder)["rows"]))
    if TABLE.exists():
        compare(found["rows"], json.loads(TABLE.read_text())["rows"])
    TABLE.write_text(json.dumps(found, indent=0) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
