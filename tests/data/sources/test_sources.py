"""Sources: batches of any rows, wherever these lie, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.data.batch import Batch
from pympi_train.data.moving import moved
from pympi_train.data.preparation import Preparation
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.data.sources.own_batch import OwnBatch
from pympi_train.data.standardise import Scaling

N, D = 24, 3
X = np.random.default_rng(4).standard_normal((40, D))  # the file
KEPT = np.random.default_rng(5).permutation(40)[:N]
KEPT.sort()
Y, WEIGHTS = np.arange(N), np.arange(N) / 2
SCALING = Scaling(np.array([1.0, 0.0, -2.0]), np.array([0.5, 1.0, 3.0]))
PREPARATION = Preparation(3, scaling=SCALING)


def reach(start, stop):
    return X[start:stop]


def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def resident(weights=True):
    with np.errstate(over="ignore"):
        x = SCALING.apply(X[KEPT]).astype(np.float32)
    return pt.Dataset(x, Y, weights=WEIGHTS if weights else None, comm=alone())


def mapped(weights=True):
    rows = MappedRows(X, KEPT, PREPARATION, np.float32, reach=reach)
    return MappedDataset(rows, Y, weights=WEIGHTS if weights else None, comm=alone())


KINDS = {"resident": resident, "mapped": mapped}
rows_of = st.one_of(
    st.tuples(st.integers(0, N), st.integers(0, N)).map(
        lambda ends: slice(min(ends), max(ends))
    ),
    st.lists(st.integers(0, N - 1), max_size=N).map(lambda r: np.array(r, np.intp)),
)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=rows_of, weights=st.booleans(), given_room=st.booleans())
def test_batches_are_those_rows(kind, rows, weights, given_room):
    source, want = KINDS[kind](weights), resident(weights)
    room = source.room(N + 1) if given_room else None
    batch = source.batch(rows, room)
    assert_array_equal(batch.x, want.x[rows])
    assert_array_equal(batch.y, Y[rows])
    assert (batch.x.dtype, batch.x.flags.c_contiguous) == (np.float32, True)
    if weights:
        assert_array_equal(batch.weights, WEIGHTS[rows])
    assert (batch.weights is None) is not weights
    numbers = np.arange(N)[batch.rows] if isinstance(rows, slice) else batch.rows
    assert_array_equal(numbers, np.arange(N)[rows])
    assert source.weight_of(rows) == (WEIGHTS[rows].sum() if weights else len(batch.x))
    if given_room and len(batch.x):
        assert np.shares_memory(batch.x, room.x)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_source_says_of_itself(kind):
    source = KINDS[kind]()
    assert (len(source), source.n, source.start, source.stop) == (N, N, 0, N)
    assert source.kinds.x == ((D,), np.float32) and source.kinds.rows is None
    assert source.nbytes == N * (4 * D + 8 + 8)
    assert source.is_plain
    assert_array_equal(source.targets(), Y)
    bare = source.features_only()
    assert bare.batch(slice(0, 2))[1:3] == (None, None)
    assert bare.kinds.y is None and source.kinds.y is not None
    floats = source.with_targets(np.float32)
    assert floats.batch(slice(0, 2)).y.dtype == np.float32
    assert source.batch(slice(0, 2)).y.dtype == Y.dtype


def test_rows_of_a_resident_source_that_lie_together_are_views():
    source = resident()
    assert np.shares_memory(source.batch(slice(2, 9)).x, source.x)


def test_fortran_order_is_not_plain():
    assert not pt.Dataset(np.asfortranarray(X), None, comm=alone()).is_plain


@pytest.mark.parametrize(
    "rows", [None, slice(5, 9), np.array([7, 0, 3, 3])], ids=["none", "slice", "array"]
)
def test_a_batch_of_ones_own_keeps_its_numbers(rows):
    source = OwnBatch(Batch(X[:4], Y[:4], None, rows))
    found = source.batch(slice(1, 3)).rows
    if rows is None:
        assert found is None
    elif isinstance(rows, slice):
        assert found == slice(6, 8)
    else:
        assert found.tolist() == [0, 3]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_whole(comm, kind):
    cuts = np.linspace(0, N, comm.size + 1).astype(int).tolist()
    own = slice(cuts[comm.rank], cuts[comm.rank + 1])
    whole = KINDS[kind]()
    part = type(whole)(whole.x[own], Y[own], comm=comm)
    n = own.stop - own.start
    assert part.batch(slice(0, n)).rows == own
    backwards = np.arange(n)[::-1]
    assert part.batch(backwards).rows.tolist() == part.batch(backwards).y.tolist()


@pytest.mark.mpi(min_size=2)
def test_rows_in_a_file_move_by_their_numbers(comm):
    """From any cuts to any others, held out rows between them, ranks without any."""
    rng = np.random.default_rng(1)  # the same on all ranks
    for _ in range(10):
        old, new = (
            [0, *sorted(rng.integers(0, N + 1, comm.size - 1)), N] for _ in range(2)
        )
        own = KEPT[old[comm.rank] : old[comm.rank + 1]]
        first, stop = (own[0], own[-1] + 1) if len(own) else (0, 0)
        rows = MappedRows(
            reach(first, stop), own - first, PREPARATION, "f4", reach=reach, first=first
        )
        found = rows.moved(old, new, comm)
        want = moved(rows[:], old, new, comm)
        assert found.shape == want.shape
        assert_array_equal(found[:], want)
        again = found.moved(new, old, comm)
        assert_array_equal(again[:], rows[:])
