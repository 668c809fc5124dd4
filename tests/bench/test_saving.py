"""The timing of checkpoints."""

import os

import pytest

from pympi_train.bench import saving
from pympi_train.errors import DataError


@pytest.mark.mpi(min_size=2)
def test_sides(comm, mpi_tmp_path):
    found = saving.measure(comm, mpi_tmp_path, n_bytes=2 * 10**5, rounds=2)
    # Three matrices and biases of each layer, and what else is in a state.
    n = found["parameters"]
    assert 12 * n < found["bytes"] < 12 * n + 10**4
    assert 10**5 < found["bytes"] < 3 * 10**5
    positive = "plain_bytes_per_s", "checkpoint_bytes_per_s", "times_plain", "step_s"
    assert all(found[key] > 0 for key in positive)
    assert found["overhead"] == found["delay_s"] / saving.INTERVAL_S
    comm.Barrier()
    assert os.listdir(mpi_tmp_path) == []


@pytest.mark.mpi(min_size=2)
def test_too_little_space(comm, mpi_tmp_path):
    with pytest.raises(DataError, match="bytes are free, and checkpoints would take"):
        saving.measure(comm, mpi_tmp_path, n_bytes=10**17)
    with pytest.raises(DataError, match="absent: No such file"):
        saving.measure(comm, mpi_tmp_path / "absent", n_bytes=2**20)
