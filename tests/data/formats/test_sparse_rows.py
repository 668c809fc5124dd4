"""Checks of sparse rows, against loops over rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.formats.sparse import sparse_rows
from pympi_train.errors import DataError

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6, unique=True), max_size=8)


def csr(rows):
    counts = np.array([len(row) for row in rows], np.int64)
    indices = np.array([column for row in rows for column in row], np.int64)
    values = np.arange(1.0, len(indices) + 1)
    return counts, indices, values


@given(ROWS, st.integers(1, 7))
def test_entries_in_any_order(rows, n_checked):
    counts, indices, values = csr(rows)
    kept, sparse_rows.CHECKED_ENTRIES = sparse_rows.CHECKED_ENTRIES, n_checked
    try:
        x = sparse_rows.csr_of_entries(counts, indices, values, 10)
        assert sparse_rows.first_unsorted(x) is None
        sparse_rows.require_sparse_rows(x, "f")
        parts = list(sparse_rows.parts_of(x))
    finally:
        sparse_rows.CHECKED_ENTRIES = kept
    want = np.zeros((len(rows), 10))
    want[np.repeat(np.arange(len(rows)), counts), indices] = values
    assert_array_equal(x.toarray(), want)
    assert [first for first, _ in parts] == list(
        np.cumsum([0, *(len(part) for _, part in parts)])[:-1]
    )
    assert sum(len(part) for _, part in parts) == len(rows)
    assert_array_equal(sparse_rows.dense_rows(x, "f", "float64"), want)


@given(ROWS, st.integers(1, 7), st.data())
def test_the_first_unsorted_row(rows, n_checked, data):
    rows = [sorted(row) for row in rows]
    wide = [i for i, row in enumerate(rows) if row]
    if not wide:
        return
    wrong = data.draw(st.sampled_from(wide))
    rows[wrong] = [*rows[wrong], rows[wrong][-1]]
    counts, indices, values = csr(rows)
    pointers = np.concatenate(([0], np.cumsum(counts)))
    made_of = pointers, indices.astype(np.int32), values, 10
    x = sparse_rows.CSR.of_pointers(*made_of)
    kept, sparse_rows.CHECKED_ENTRIES = sparse_rows.CHECKED_ENTRIES, n_checked
    try:
        assert sparse_rows.first_unsorted(x) == wrong
        with pytest.raises(DataError, match=f"f, row {wrong + 5} .*comes twice"):
            sparse_rows.require_sparse_rows(x, "f", 5)
    finally:
        sparse_rows.CHECKED_ENTRIES = kept


def test_too_many_columns_for_memory():
    x = sparse_rows.csr_of_entries(
        np.array([1]), np.array([0]), np.array([1.0]), 2**31
    )
    huge = x[np.zeros(1_000_000, np.intp)]
    with pytest.raises(DataError, match="1000000 rows of 2147483648 .*GiB; keep them"):
        sparse_rows.dense_rows(huge, "f", "float64")
