#!/usr/bin/env python3
"""Record what the trainings of tests/harness/recorded_runs.py end with, or compare.

    scripts/dev/record_runs.py                    writes recorded_runs.json
    scripts/dev/record_runs.py --against COMMIT   runs it on both versions

Names the rows that differ; exit status 1 with --against if there are any. To be run
with the Python of an environment that has the extras `test`, `fast` and MPICH.
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
    """Return the table of the package in ``tree``."""
    from mpi_launch import SAME_BITS, mpirun

    program = ROOT / "tests" / "harness" / "recorded_runs.py"
    argv = [sys.executable, "-m", "mpi4py", program]
    env = {**SAME_BITS, "PYTHONPATH": str(tree)}
    done = mpirun(3, argv, timeout=1800, env=env)
    if done.returncode:
        sys.exit(f"{tree}: the runs failed\n{done.stderr}")
    return json.loads(done.stdout)


def checked_out(commit, folder):
    """Put the files of ``commit`` into ``folder``."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


def compare(found, recorded):
    """Print the rows that differ; return how many do."""
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
