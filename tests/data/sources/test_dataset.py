"""Rows spread over ranks: where each rank's rows lie in the whole."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from spread import SPREADS, cuts, dataset

import pympi_train as pt
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError, RankMismatchError, RemoteRankError


def rows(n, width=3):
    x = np.arange(n * width, dtype=float).reshape(n, width)
    return x, np.arange(n), np.linspace(1, 2, n)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [1, 2, 103])
@pytest.mark.parametrize("spread", SPREADS)
def test_place_in_the_whole(comm, spread, n):
    x, y, weights = rows(n)
    data = dataset(comm, spread, x, y, weights)
    cut = cuts(n, comm.size, spread)
    assert (data.n, data.start, data.stop) == (n, *cut[comm.rank : comm.rank + 2])
    assert len(data) == data.stop - data.start
    assert_array_equal(data.x, x[data.start : data.stop])
    assert_array_equal(np.concatenate(comm.allgather(data.y)), y)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [1, 5, 103])
def test_split_keeps_own_rows_in_copies(comm, n):
    x, y, weights = rows(n)
    data = pt.Dataset.split(x, y, weights=weights, comm=comm)
    assert (data.start, data.stop) == own_range(n, comm.rank, comm.size)
    for mine, whole in ((data.x, x), (data.y, y), (data.weights, weights)):
        assert_array_equal(mine, whole[data.start : data.stop])
        assert not np.shares_memory(mine, whole)
    assert pt.Dataset.split(x, y, comm=comm).weights is None


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "change, text",
    [
        (lambda x, y, w: (x, y[:-1], w), "4 rows of features but 3 of targets"),
        (lambda x, y, w: (x, y, w[1:]), "4 rows of features but 3 of weights"),
        (lambda x, y, w: (x[:, 0], y, w), r"shape \(rows, columns\), got \(4,\)"),
    ],
)
def test_wrong_shapes_on_one_rank_raise_on_every_rank(comm, change, text):
    parts = rows(4)
    if comm.rank == comm.size - 1:
        parts = change(*parts)
    with pytest.raises(DataError, match=text):
        pt.Dataset(parts[0], parts[1], weights=parts[2], comm=comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weight_that_makes_no_sense_on_one_rank(comm, weight):
    x, y, weights = rows(4)
    if comm.rank == 1:
        weights[2] = weight
    with pytest.raises(DataError, match=f"not negative, got {weight} in row 2"):
        pt.Dataset(x, y, weights=weights, comm=comm)


@pytest.mark.mpi(min_size=2)
def test_weights_are_all_0(comm):
    x, y, weights = rows(4)
    with pytest.raises(DataError, match="at least one weight above 0"):
        pt.Dataset(x, y, weights=0 * weights, comm=comm)
    one = weights * (comm.rank == 1)
    assert_array_equal(pt.Dataset(x, y, weights=one, comm=comm).weights, one)


@pytest.mark.mpi(min_size=2)
def test_weights_on_some_ranks_only(comm):
    x, y, weights = rows(4)
    with pytest.raises(RankMismatchError, match="whether there are weights differs"):
        pt.Dataset(x, y, weights=weights if comm.rank else None, comm=comm)


@pytest.mark.mpi(min_size=2)
def test_ranks_that_disagree_on_the_features(comm):
    x, y, _ = rows(0 if comm.rank else 4, width=2 if comm.rank else 3)
    with pytest.raises(RankMismatchError, match="features differs between ranks: 3"):
        pt.Dataset(x, y, comm=comm)


@pytest.mark.mpi(min_size=2)
def test_no_row_on_any_rank(comm):
    x, y, _ = rows(0)
    with pytest.raises(DataError, match="at least one row"):
        pt.Dataset(x, y, comm=comm)


@pytest.mark.mpi(min_size=2)
def test_error_that_is_none_of_ours_names_the_rank(comm):
    x, y, _ = rows(4)
    y = y if comm.rank != 1 else type("Odd", (), {"moved": None, "__len__": None})()
    with pytest.raises((RemoteRankError, TypeError)) as caught:
        pt.Dataset(x, y, comm=comm)
    if comm.rank != 1:
        assert "rank 1" in str(caught.value)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_number_that_is_not_finite_is_named_where_it_is(comm, value):
    """By its row in the whole, whichever rank has it."""
    x, y = np.zeros((9, 2), np.float32), np.zeros((9, 1))
    x[7, 1] = value
    message = r"features, row 7, column 1 \(both from 0\): expected a finite number, f"
    with pytest.raises(DataError, match=message):
        pt.Dataset.split(x, y, comm=comm)
    x[7, 1], y[8] = 0, value
    with pytest.raises(DataError, match="targets, row 8, column 0"):
        pt.Dataset.split(x, y, comm=comm)
    pt.Dataset.split(x, None, comm=comm)


class Sparse:
    """As SciPy's, in what it has and has not."""

    ndim, dtype, shape = 2, np.dtype("f4"), (3, 2)

    def tocsr(self):
        return self

    def __len__(self):
        raise TypeError("sparse array length is ambiguous")


@pytest.mark.parametrize(
    "x, words",
    [
        (Sparse(), "features must be dense, got a sparse Sparse: pt.SparseDataset"),
        ([[1.0, 2.0]] * 3, "features must be a NumPy array, got list: numpy.asarray"),
        (None, "features must be a NumPy array, got NoneType"),
        (np.ma.masked_less(np.ones((3, 2)), 0), "features must not be masked"),
        (np.ones((3, 2), dtype=object), "features must be numbers, got dtype object"),
    ],
)
def test_what_is_no_array(x, words):
    from mpi4py import MPI

    for make in (pt.Dataset, pt.Dataset.split):
        with pytest.raises(DataError, match=words):
            make(x, np.zeros(3), comm=MPI.COMM_SELF)


def test_labels_that_are_text_are_no_targets():
    from mpi4py import MPI

    with pytest.raises(DataError, match="targets must be indices of classes, or numb"):
        pt.Dataset(np.ones((2, 1)), np.array(["a", "b"]), comm=MPI.COMM_SELF)


@pytest.mark.parametrize(
    "y, weights, message",
    [
        (np.array(3.0), None, r"targets must have shape \(rows,\) or .*, got \(\)"),
        (np.ones((4, 1, 1)), None, "targets must have shape"),
        (np.ones(4), np.ones((4, 1)), r"weights must have shape \(rows,\), got \(4, 1"),
    ],
)
def test_shapes_that_are_refused(y, weights, message):
    from mpi4py import MPI

    with pytest.raises(DataError, match=message):
        pt.Dataset(np.ones((4, 2)), y, weights=weights, comm=MPI.COMM_SELF)


def test_targets_too_large_for_the_model():
    from mpi4py import MPI

    rows = pt.Dataset(np.ones((3, 1)), np.array([1, 1e300, 1]), comm=MPI.COMM_SELF)
    with pytest.raises(DataError, match="too large for float32 in row 1 of this rank"):
        rows.with_targets("float32")
