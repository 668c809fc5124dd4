"""Batches out of a rank's rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.batch import Batch
from pympi_train.data.feeds.feed import Feed
from pympi_train.data.sources.own_batch import OwnBatch

N = 23


def make_source(n=N, weights=True, order="C"):
    x = np.asarray(np.arange(2.0 * n).reshape(n, 2), order=order)
    return OwnBatch(Batch(x, np.arange(n), np.arange(n) / 2 if weights else None))


def collect(feed, rows):
    """Return copies of the batches."""
    batches = []
    for batch in feed.batches(rows):
        copies = (None if a is None else a.copy() for a in batch[:3])
        batches.append(Batch(*copies, batch.rows))
    return batches


@given(
    most=st.integers(1, 30),
    start=st.integers(0, N),
    k=st.integers(0, N),
    weights=st.booleans(),
)
def test_slices_and_indices_give_the_same_batches(most, start, k, weights):
    rows, stop = make_source(weights=weights), min(N, start + k)
    feed = Feed(rows, most)
    for share in (slice(start, stop), np.arange(start, stop)):
        batches = collect(feed, share)
        assert len(batches) == feed.count(share)
        assert len(batches) == max(1, -(-(stop - start) // most))
        assert all(len(batch.x) <= most for batch in batches)
        whole = np.concatenate([batch.x for batch in batches])
        assert_array_equal(whole, rows.x[start:stop])
        assert sum([batch.y.tolist() for batch in batches], []) == [
            *range(start, stop)
        ]
        for batch in batches:
            assert len(batch.x) == len(batch.y)
            assert (batch.weights is not None) == weights
            if weights:
                assert_array_equal(batch.weights, batch.y / 2)


@pytest.mark.parametrize("order", ["C", "F"])
def test_gathers_in_the_order_of_the_indices(order):
    rows = make_source(order=order)
    share = np.array([5, 0, 22, 7, 1], dtype=np.intp)
    batches = collect(Feed(rows, 2), share)
    assert [batch.y.tolist() for batch in batches] == [[5, 0], [22, 7], [1]]
    assert_array_equal(np.concatenate([batch.x for batch in batches]), rows.x[share])


def test_rows_that_lie_together_are_views():
    rows = make_source()
    batch = next(Feed(rows, 100).batches(slice(3, 9)))
    assert np.shares_memory(batch.x, rows.x) and np.shares_memory(batch.y, rows.y)


def test_workspaces_are_reused_and_only_grow():
    feed = Feed(make_source(), 8)

    def buffer(k):
        batch = next(feed.batches(np.arange(k)))
        return batch.x.__array_interface__["data"][0]

    first = buffer(5)
    assert [buffer(k) for k in (3, 0, 5)] == [first] * 3
    grown = buffer(8)
    assert [buffer(k) for k in (1, 20, 8)] == [grown] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.intp])
def test_targets_are_converted_once(dtype):
    feed = Feed(make_source(), 4, y_dtype=dtype)
    for share in (slice(0, 4), np.arange(4)):
        batch = next(feed.batches(share))
        assert batch.y.dtype == dtype
    assert batch.y.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e30])
def test_class_indices_are_not_cut_off(value):
    rows = make_source()
    rows.y = rows.y.astype(float)
    Feed(rows, 4, y_dtype=np.intp)  # whole numbers may be floats
    rows.y[7] = value
    with pytest.raises(ValueError, match="expected class indices, got .* in row 7"):
        Feed(rows, 4, y_dtype=np.intp)


def test_without_targets():
    rows = make_source()
    rows.y = None
    batch = next(Feed(rows, 4, y_dtype=np.intp).batches(np.arange(3)))
    assert batch.y is None and len(batch.x) == 3


def test_model_looks_at_all_rows_once():
    class Model:
        seen = None

        def check(self, batch):
            self.seen = batch

    model, rows = Model(), make_source()
    feed = Feed(rows, 4)
    feed.check(model)
    assert model.seen.x is rows.x and model.seen.weights is rows.weights
    feed.check(object())  # one without the method


def test_batches_that_are_missing_come_without_rows():
    feed = Feed(make_source(), 3)
    lengths = [len(batch.x) for batch in feed.batches(np.arange(4), 4)]
    assert lengths == [3, 1, 0, 0]
