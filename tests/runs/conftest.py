"""Rows for small runs."""

import pytest
from small_runs import write_rows


@pytest.fixture
def folder(mpi_tmp_path, comm):
    """A folder of all ranks, with the rows of `small_runs`."""
    if comm.rank == 0:
        write_rows(mpi_tmp_path)
    comm.Barrier()
    return mpi_tmp_path
