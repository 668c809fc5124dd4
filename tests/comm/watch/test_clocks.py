"""Planted clocks of ranks are found by messages."""

from time import perf_counter

import pytest

from pympi_train.comm.watch.clocks import read_offset

AHEAD_S = 1000.0  # of each rank's clock against that of the rank before


@pytest.mark.mpi(min_size=2)
def test_planted_offsets_are_found(comm):
    planted_s = AHEAD_S * comm.rank
    before_s = perf_counter() + planted_s
    reading = read_offset(comm, lambda: perf_counter() + planted_s)
    assert before_s <= reading.at_s <= perf_counter() + planted_s
    # The ranks of a test read one clock of the kernel.
    assert abs(reading.offset_s + planted_s) <= reading.error_s + 1e-9
    assert reading.error_s < AHEAD_S / 10 and (reading.error_s > 0) == (comm.rank > 0)
