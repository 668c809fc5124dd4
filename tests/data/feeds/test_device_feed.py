"""Batches on a GPU are those of `Feed`: resident or streamed, fetched ahead or not."""

import gpus
import numpy as np
import pytest

import pympi_train as pt
from pympi_train.data.feeds.feed import Feed

pytestmark = pytest.mark.gpu
N, MOST = 50, 8


@pytest.fixture
def ops():
    gpus.use()
    from pympi_train.backends.cuda import ops as cuda_ops

    return cuda_ops


@pytest.fixture(params=[True, False], ids=["weighted", "plain"])
def dataset(request):
    from mpi4py import MPI

    rng = np.random.default_rng(2)
    x = rng.standard_normal((N, 3)).astype(np.float32)
    weights = rng.random(N).astype(np.float32) if request.param else None
    return pt.Dataset(x, rng.integers(0, 4, N), weights=weights, comm=MPI.COMM_SELF)


@pytest.fixture(params=[True, False], ids=["resident", "streamed"])
def feed(request, dataset, ops):
    from pympi_train.data.feeds.device_feed import DeviceFeed

    return DeviceFeed(dataset, MOST, ops, resident=request.param)


def read(batch, ops):
    parts = (batch.x, batch.y, batch.weights)
    return [None if one is None else ops.to_host(one) for one in parts]


def orders():
    rng = np.random.default_rng(3)
    yield slice(0, 0)
    yield np.arange(0)
    yield slice(5, 30)
    for n in (1, 7, 8, 9, 33, 20):  # buffers grow, and are used by fewer rows
        yield rng.permutation(N)[:n]


@pytest.mark.parametrize("ahead", [True, False])
def test_batches_are_those_of_the_host(feed, dataset, ops, ahead):

    plain, everything = Feed(dataset, MOST), list(orders())
    found, wanted, weights = [], [], []
    for rows, following in zip(everything, [*everything[1:], None]):
        feed.announce(following if ahead else None)
        for batch, want in zip(feed.batches(rows), plain.batches(rows), strict=True):
            found.append(read(batch, ops))
            weights.append((feed.weight_of(batch), plain.weight_of(want)))
            wanted.append([None if a is None else a.copy() for a in want[:3]])
        feed.fetch_ahead()
    for mine, theirs in zip(found, wanted, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b) if b is not None else None
            assert (a is None) == (b is None)
    np.testing.assert_allclose(*zip(*weights), rtol=1e-6)


def test_batches_that_the_host_does_not_wait_for(feed, dataset, ops):
    rows, kept = np.random.default_rng(4).permutation(N), []
    for _ in range(3):  # both slots are used again, while all is queued
        feed.announce(rows)
        for batch in feed.batches(rows):
            kept.append(ops.empty(batch.x.shape, batch.x.dtype))
            ops.copy(batch.x, kept[-1])
        feed.fetch_ahead()
    found = np.concatenate([ops.to_host(one) for one in kept])
    np.testing.assert_array_equal(found, np.tile(dataset.x[rows], (3, 1)))


def test_what_was_announced_is_on_its_way_before_it_is_asked_for(feed, ops):
    fetched, fetch = [], feed._supply.fetch
    feed._supply.fetch = lambda rows: fetched.append(rows) or fetch(rows)
    rows = np.arange(20)[::-1].copy()
    feed.announce(rows)
    assert not fetched
    feed.fetch_ahead()
    assert len(fetched) == 1
    first = next(feed.batches(rows))
    assert len(fetched) == 1
    np.testing.assert_array_equal(fetched[0], rows[:MOST])
    other = next(feed.batches(rows))  # nobody announced it a second time
    assert len(fetched) == 2
    np.testing.assert_array_equal(read(first, ops)[0], read(other, ops)[0])


def test_other_rows_than_were_announced(feed, dataset, ops):
    feed.announce(np.arange(9))
    feed.fetch_ahead()
    rows = np.array([40, 3, 3])
    (batch,) = feed.batches(rows)
    np.testing.assert_array_equal(read(batch, ops)[0], dataset.x[rows])


def test_memory_of_a_batch_that_nobody_took_is_used_after_it_came(dataset, ops):
    from pympi_train.backends.cuda import device as cuda
    from pympi_train.data.feeds.device_feed import DeviceFeed

    feed = DeviceFeed(dataset, MOST, ops, resident=False)
    feed.announce(np.arange(9))
    feed.fetch_ahead()
    there = cuda.record(cuda.side_stream("batches"))
    del feed
    cuda.wait_for_device()
    assert there.done


def test_the_scale_is_a_factor_on_the_weights(feed, dataset, ops):
    feed.scale = 8.0
    rows = np.array([4, 2])
    (batch,) = feed.batches(rows)
    plain = np.ones(N, np.float32) if dataset.weights is None else dataset.weights
    np.testing.assert_array_equal(read(batch, ops)[2], 8 * plain[rows])
    assert feed.weight_of(batch) == pytest.approx(plain[rows].sum())


def test_rows_that_find_no_room_are_streamed(dataset, ops, monkeypatch):
    from pympi_train.data.feeds import device_feed
    from pympi_train.errors import DeviceMemoryError

    def put(array, dtype, ops):
        raise DeviceMemoryError("no room")

    monkeypatch.setattr(device_feed, "_put", put)
    feed = device_feed.DeviceFeed(dataset, MOST, ops)
    assert not feed.is_resident
    (batch,) = feed.batches(np.arange(5))
    np.testing.assert_array_equal(read(batch, ops)[0], dataset.x[:5])


@pytest.mark.parametrize("share, resident", [(1.0, True), (0.0, False)])
def test_memory_decides_where_rows_lie(dataset, ops, monkeypatch, share, resident):
    from pympi_train.data.feeds import device_feed

    monkeypatch.setattr(device_feed, "RESIDENT_SHARE", share)
    assert device_feed.DeviceFeed(dataset, MOST, ops).is_resident is resident


def test_sparse_rows_are_refused_in_half_precision(ops):
    from mpi4py import MPI

    from pympi_train.backends.csr import CSR
    from pympi_train.data.feeds.make import make_feed
    from pympi_train.errors import ConfigError

    starts = np.zeros(3, np.int64)
    x = CSR(starts, starts, np.empty(0, np.int32), np.empty(0, np.float32), 5)
    data = pt.SparseDataset(x, np.zeros(3, int), comm=MPI.COMM_SELF)
    with pytest.raises(ConfigError, match="computed in full precision"):
        make_feed(data, MOST, ops, dtype=np.dtype(np.float16))


def sparse_dataset(n_columns):
    """Return a SparseDataset with empty and full rows and unequal weights."""
    from mpi4py import MPI

    from pympi_train.backends.csr import CSR

    rng = np.random.default_rng(5)
    counts = rng.integers(0, 4, N)
    counts[[7, 8]] = 0, 6
    columns = [np.sort(rng.choice(n_columns, c, replace=False)) for c in counts]
    pointers = np.concatenate(([0], np.cumsum(counts)))
    parts = np.concatenate(columns).astype(np.int32), rng.standard_normal(pointers[-1])
    x = CSR.of_pointers(pointers, *parts, n_columns)
    y, weights = rng.integers(0, 4, N), rng.random(N)
    return pt.SparseDataset(x, y, weights=weights, comm=MPI.COMM_SELF)


def products(products_of, batch, w, out, gradient):
    """Return X W and X^T X W of a batch, in ``out`` and ``gradient``."""
    products_of.csr_matmul(batch.x, w, out)
    products_of.csr_transposed_matmul(batch.x, out, gradient)
    return [out, gradient, batch.y, batch.weights]


@pytest.mark.parametrize("n_columns", [6, 70_000])  # one digit of a column, and two
@pytest.mark.parametrize("ahead", [True, False])
def test_sparse_batches_give_the_products_of_the_host(ops, ahead, n_columns):
    from pympi_train.backends.numpy import ops as numpy_ops
    from pympi_train.data.feeds.device_feed import DeviceFeed

    data = sparse_dataset(n_columns)
    feed, plain = DeviceFeed(data, MOST, ops), Feed(data, MOST)
    w = np.random.default_rng(6).standard_normal((n_columns, 2))
    w_there = ops.empty(w.shape, w.dtype)
    ops.from_host(w, w_there)
    # Slices three times: copied, kept on the device, and read there.
    everything, found, wanted = [*orders(), *orders(), slice(5, 30)], [], []
    for rows, following in zip(everything, [*everything[1:], None]):
        feed.announce(following if ahead else None)
        for batch, want in zip(feed.batches(rows), plain.batches(rows), strict=True):
            k = len(want.x)
            assert (len(batch.x), batch.x.shape) == (k, (k, n_columns))
            shapes = (k, 2), w.shape
            room = [ops.empty(shape, w.dtype) for shape in shapes]
            there = products(ops.sparse, batch, w_there, *room)
            found += [ops.to_host(one) for one in there]
            room = [np.empty(shape) for shape in shapes]
            here = products(numpy_ops.sparse, want, w, *room)
            wanted += [one.copy() for one in here]
        feed.fetch_ahead()
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-13)


@pytest.mark.parametrize("share, n_kept", [(0.5, 4), (-1.0, 0)])  # -1: never room
def test_slices_of_sparse_rows_are_kept_if_there_is_room(
    ops, monkeypatch, share, n_kept
):
    from pympi_train.data.feeds import device_feed

    monkeypatch.setattr(device_feed, "RESIDENT_SHARE", share)
    data, fetched = sparse_dataset(6), []
    take = data.batch
    monkeypatch.setattr(data, "batch", lambda *a: fetched.append(a) or take(*a))
    how = {"forward_only": share < 0}
    feed = device_feed.DeviceFeed(data, MOST, ops, **how)
    for _ in range(3):
        for batch in feed.batches(slice(0, 30)):
            assert len(batch.x) == len(batch.y)
            assert (batch.x.by_column is None) == how["forward_only"]
    assert len(fetched) == 12 - n_kept
