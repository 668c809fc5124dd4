"""No damaged checkpoint is loaded; see harness/damage_runs.py."""

import os
import tempfile

import damage_runs
import pytest

MEMORY = "/dev/shm"


@pytest.fixture
def folder(tmp_path):
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield path


def test_damaged_files(folder):
    from mpi4py import MPI

    counts = damage_runs.check(folder, MPI.COMM_SELF, 10_000)
    assert len(counts) == 4 and min(counts.values()) > 800
    assert sum(counts.values()) == 10_000


def test_files_of_two_checkpoints_mixed(folder):
    from mpi4py import MPI

    assert damage_runs.check_mixes(folder, MPI.COMM_SELF) > 40
