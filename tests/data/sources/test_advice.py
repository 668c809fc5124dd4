import mmap

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.data.sources import advice
from pympi_train.data.sources.advice import read_soon


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(300_000, dtype="f4").reshape(-1, 3))
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("start, stop", [(0, 1), (7, 90_000), (500, 11_423)])
def test_whole_pages_around_the_rows_are_advised(rows, monkeypatch, start, stop):
    asked = []
    monkeypatch.setattr(advice, "_madvise", lambda: lambda *call: asked.append(call))
    part = rows[start:stop]
    read_soon(part)
    first = part.__array_interface__["data"][0]
    assert 0 <= first - asked[0][0] < mmap.PAGESIZE
    for at, n_bytes, how in asked:
        assert at % mmap.PAGESIZE == 0 and how == mmap.MADV_WILLNEED
        assert 0 < n_bytes <= advice.ADVISED_BYTES
    ends = [at + n_bytes for at, n_bytes, _ in asked]
    assert [at for at, _, _ in asked[1:]] == ends[:-1]
    assert ends[-1] == first + part.nbytes


def test_nothing_is_advised_that_is_no_run_of_bytes(rows, monkeypatch):
    monkeypatch.setattr(advice, "_madvise", lambda: pytest.fail("asked"))
    read_soon(rows[:, 1])
    read_soon(rows[:0])
    monkeypatch.setattr(advice, "WILL_NEED", None)  # a system without it
    read_soon(rows)


def test_advice_changes_no_bytes(rows):
    want, memory = np.arange(300_000, dtype="f4").reshape(-1, 3), np.arange(9.0)
    read_soon(rows)
    read_soon(memory)
    assert_array_equal(rows, want)
    assert_array_equal(memory, np.arange(9.0))
