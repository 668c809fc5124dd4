"""Features decoded block by block: those of the whole, with few blocks in memory."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.errors import DataError


@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 3), st.data())
def test_rows_are_those_of_one_array(counts, n_kept, data):
    n, cuts = sum(counts), np.cumsum([0, *counts])
    whole = np.arange(3.0 * n).reshape(n, 3)
    resident = {1: -np.arange(float(n))}

    def decode(i):
        block = whole[cuts[i] : cuts[i + 1]].copy()
        block[:, 1] = 99
        return block

    rows = StreamedRows(counts, decode, 3, "f8", dict(resident))
    whole = whole.copy()
    whole[:, 1] = resident[1]
    rows.reserve(n_kept, 1)
    start, stop = sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    some = data.draw(st.lists(st.integers(0, n - 1), max_size=6)) if n else []
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    if start < stop:
        rows.read_ahead(np.array([[start, stop]]))
    for index in (slice(start, stop), np.array(some, np.intp), mask):
        assert_array_equal(rows[index], whole[index])
        assert_array_equal(rows[index, 1], whole[index, 1])
        assert_array_equal(rows[index, 1:3], whole[index, 1:3])
    assert rows.shape == whole.shape and len(rows) == n


def test_blocks_are_decoded_once_ahead_and_dropped_in_the_order_of_use():
    threads, decoded = [], []

    def decode(i):
        threads.append(threading.current_thread())
        decoded.append(i)
        return np.full((10, 2**20), i, np.float32)  # 40 MiB: two are kept

    rows = StreamedRows([10] * 5, decode, 2**20, np.float32)
    rows.read_ahead(np.array([[5, 15]]))
    assert_array_equal(rows[[4, 14]][:, 0], [0, 1])
    assert sorted(decoded) == [0, 1] and threads[0] != threading.main_thread()
    assert rows[20:21][0, 0] == 2 and rows[10:11][0, 0] == 1
    assert decoded[2:] == [2]
    rows[0:1]
    assert decoded[2:] == [2, 0]
    rows.reserve(2, 10)  # two ranges of one block, and one more each
    for at in (0, 10, 20, 30, 0, 10, 20, 30):
        rows[at : at + 1]
    assert decoded[4:] == [0, 1, 2, 3]


def test_errors_of_the_thread_are_raised_where_rows_are_needed():
    def decode(i):
        raise DataError("damaged")

    rows = StreamedRows([2, 2], decode, 1, "f8")
    rows.read_ahead(np.array([[0, 4]]))
    with pytest.raises(DataError, match="damaged"):
        rows[[3]]
