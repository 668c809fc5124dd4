"""Rows beyond 2**31, and bytes beyond 2**32, in files that are mostly holes."""

from functools import partial

import numpy as np
import pytest
from numpy.lib import format as npy
from numpy.testing import assert_array_equal

from pympi_train.data.epoch import EpochPlan
from pympi_train.data.formats.arrays.array_rows import _reached
from pympi_train.data.formats.arrays.npy import stored_npy
from pympi_train.data.partition import bounds
from pympi_train.data.sources.mapped import MappedRows
from pympi_train.data.windows.choice import WindowOrder

ROWS = 2**31 + 12_345


@pytest.fixture(params=[2, 12])
def stored(request, tmp_path):
    """An array of bytes whose last rows count up; 4 or 26 GB of it are a hole."""
    shape = ROWS, request.param
    with open(tmp_path / "x.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        file.seek(file.tell() + (ROWS - 5000) * shape[1])
        file.write((np.arange(5000)[:, None] % 251).repeat(shape[1], 1).astype("u1"))
    return stored_npy(tmp_path / "x.npy")


@pytest.mark.parametrize("order", [None, WindowOrder(1024, 43)])
def test_the_last_rank_reads_its_last_rows(stored, order):
    size, n_batches = 10**6, 3
    start, stop = bounds(ROWS, size)[-2:]
    assert stop - start < 5000
    reach = partial(_reached, [stored], [0, ROWS])
    rows = MappedRows(
        reach(start, stop),
        np.ones(stop - start, bool),
        None,
        "f4",
        reach=reach,
        first=start,
    )
    plan = EpochPlan(ROWS, 0, 0, start, stop, 64 * size, order)
    out, want = np.empty((stop - start, stored.width), "f4"), np.arange(5000) % 251
    for b in range(plan.n_batches - n_batches, plan.n_batches):
        own = plan.batch(b)
        rows.read_ahead(plan.read_ahead(b))
        rows.take_into(own, out[: len(own)])
        expected = want[5000 - (stop - start) + own]
        assert_array_equal(out[: len(own)], expected[:, None].repeat(stored.width, 1))


def test_cuts_of_rows_beyond_31_bits_are_exact():
    for n in (ROWS, 2**40 + 7):
        cuts = bounds(n, 999)
        assert cuts[-1] == n and set(np.diff(cuts).tolist()) == {n // 999, n // 999 + 1}
