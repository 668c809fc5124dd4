"""Trainings end with the bits that were recorded: no change of the code changes them.

``scripts/dev/record_runs.py`` writes the table anew where a change is meant to.
"""

import json
import sys
from pathlib import Path

import pytest
from mpi_launch import SAME_BITS

HERE = Path(__file__).parent
PROGRAM = HERE / "harness" / "recorded_runs.py"


def test_trainings_end_with_the_recorded_bits(mpirun):
    recorded = json.loads((HERE / "recorded_runs.json").read_text())
    argv = [sys.executable, "-m", "mpi4py", PROGRAM]
    done = mpirun(3, argv, timeout=600, env=SAME_BITS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["software"] != recorded["software"]:
        pytest.skip(
            f"runs were recorded with {recorded['software']}, and this is "
            f"{found['software']}"
        )
    assert found["rows"].keys() == recorded["rows"].keys()
    assert differences(found["rows"], recorded["rows"]) == {}


def differences(found, recorded):
    """Return (found, recorded) by name of the rows that are not as recorded."""
    return {
        name: (found[name], row) for name, row in recorded.items() if found[name] != row
    }
