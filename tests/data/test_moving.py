"""Rows on their way to other ranks."""

import numpy as np
import pytest
from spread import SPREADS, cuts

from pympi_train.data import moving
from pympi_train.errors import RankMismatchError


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("most", [2**30, 7])
@pytest.mark.parametrize("old, new", [(a, b) for a in SPREADS for b in SPREADS])
@pytest.mark.parametrize("dtype, width", [("f4", (3,)), ("U5", ()), ("?", (2,))])
def test_rows_arrive_as_they_left(comm, monkeypatch, old, new, dtype, width, most):
    monkeypatch.setattr(moving, "MAX_ROWS", most)
    n = 31
    whole = np.arange(n * int(np.prod(width, dtype=int))).reshape(n, *width)
    whole = (whole % 3 if dtype == "?" else whole).astype(dtype)
    old, new = cuts(n, comm.size, old), cuts(n, comm.size, new)
    mine = whole[old[comm.rank] : old[comm.rank + 1]]
    # What is mapped from a file may lie in any order.
    got = moving.moved(np.asfortranarray(mine), old, new, comm)
    want = whole[new[comm.rank] : new[comm.rank + 1]]
    assert got.dtype == want.dtype
    assert got.shape == want.shape and got.tobytes() == want.tobytes()


@pytest.mark.mpi(min_size=2)
def test_rows_of_two_kinds_are_refused(comm):
    cut = cuts(10, comm.size, "even")
    rows = np.zeros(cut[comm.rank + 1] - cut[comm.rank], "f8" if comm.rank else "f4")
    with pytest.raises(RankMismatchError, match="dtype and width"):
        moving.moved(rows, cut, cut, comm)
