"""Rows that go where their groups are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spread import SPREADS, dataset

import pympi_train as pt
from pympi_train.data import groups
from pympi_train.data.loading import finish
from pympi_train.data.partition import bounds
from pympi_train.errors import ConfigError


@given(n=st.integers(0, 500), n_groups=st.integers(1, 40), data=st.data())
def test_ranks_own_whole_groups(n, n_groups, data):
    size = data.draw(st.integers(1, n_groups))
    of_groups = bounds(n, n_groups)
    rows = groups.row_cuts(n, n_groups, size)
    assert set(rows) <= set(of_groups) and (rows[0], rows[-1]) == (0, n)
    found = [0]
    for rank in range(size):
        own = groups.own_cuts(n, n_groups, rank, size) + rows[rank]
        assert own[0] == rows[rank] and own[-1] == rows[rank + 1]
        found.extend(own[1:].tolist())
    assert found == of_groups


@given(n=st.integers(0, 500), n_groups=st.integers(1, 40), data=st.data())
def test_ranks_that_own_unlike_numbers_of_groups(n, n_groups, data):
    inner = data.draw(st.lists(st.integers(0, n_groups), max_size=6))
    shares = [0, *sorted(inner), n_groups]
    rows, size = groups.rows_of_groups(n, n_groups, shares), len(shares) - 1
    found = []
    for rank in range(size):
        own = groups.own_cuts(n, n_groups, rank, size, shares)
        assert own[-1] == rows[rank + 1] - rows[rank]
        found.extend((own[:-1] + rows[rank]).tolist())
    assert [*found, n] == bounds(n, n_groups)


def test_more_ranks_than_groups():
    with pytest.raises(ConfigError, match="virtual_shards to 3 or more"):
        groups.row_cuts(100, 2, 3)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", SPREADS)
@pytest.mark.parametrize("n", [3, 61, 64])
def test_data_set(comm, how, n):
    rng = np.random.default_rng(1)
    x, y, weights = rng.random((n, 3)), rng.integers(0, 9, n), rng.random(n)
    data = groups.regrouped(dataset(comm, how, x, y, weights), 8, comm)
    start, stop = groups.row_cuts(n, 8, comm.size)[comm.rank :][:2]
    assert (data.n, data.start, data.stop) == (n, start, stop)
    assert (data.x == x[start:stop]).all() and (data.y == y[start:stop]).all()
    assert (data.weights == weights[start:stop]).all()
    assert groups.regrouped(data, 8, comm) is data
    shares = [*range(comm.size), 8]
    data = groups.regrouped(data, 8, comm, shares)
    start, stop = groups.rows_of_groups(n, 8, shares)[comm.rank :][:2]
    assert (data.start, data.stop) == (start, stop) and (data.y == y[start:stop]).all()


@pytest.mark.mpi(min_size=2)
def test_data_set_without_targets_or_weights(comm):
    data = pt.Dataset(np.ones((comm.rank, 2)), None, comm=comm)
    data = groups.regrouped(data, 5, comm)
    assert (data.y, data.weights) == (None, None) and (data.x == 1).all()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("who", ["all", "last"])
def test_rows_in_their_places_come_in_c_order(comm, who):
    """From another order a product has other bits; one rank's is reason enough."""
    x = np.random.default_rng(1).random((61, 3))
    start, stop = groups.row_cuts(61, 8, comm.size)[comm.rank :][:2]
    own = x[start:stop]
    if who == "all" or comm.rank == comm.size - 1:
        own = np.asfortranarray(own)
    with pt.Ranks(comm, debug=True) as ranks:  # tells of a rank that moves alone
        data = groups.regrouped(pt.Dataset(own, None, comm=ranks), 8, ranks.comm)
    assert data.x.flags.c_contiguous and (data.x == x[start:stop]).all()


@pytest.fixture
def file(mpi_tmp_path, comm):
    """A file of 61 rows, their offset a thousand times their deviation."""
    rng = np.random.default_rng(2)
    if comm.rank == 0:
        x = 1e3 + rng.standard_normal((61, 3)) * [1, 1e-3, 0]
        y = rng.choice(["oak", "elm", "ash"], 61)
        np.savez(mpi_tmp_path / "rows.npz", X=np.asfortranarray(x), tree=y)
    comm.Barrier()
    return mpi_tmp_path / "rows.npz"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stay_in_file", [False, True])
@pytest.mark.parametrize("validation", [None, 0.3, "same file"])
def test_loaded_rows_have_the_bits_of_one_rank(
    comm, file, monkeypatch, validation, stay_in_file
):
    from mpi4py import MPI

    if stay_in_file:
        monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    kwargs = {
        "target": "tree",
        "validation": file if validation == "same file" else validation,
        "standardize": True,
        "class_weights": "balanced",
        "seed": 3,
        "virtual_shards": 6,
    }
    mine, whole = (pt.load(file, comm=of, **kwargs) for of in (comm, MPI.COMM_SELF))
    scalings = [of.schema.preparation.scaling for of in (mine, whole)]
    for name in ("mean", "scale"):
        got, want = (getattr(scaling, name) for scaling in scalings)
        assert got.tobytes() == want.tobytes()
    plain = pt.load(file, comm=comm, **{**kwargs, "virtual_shards": None})
    other = plain.schema.preparation.scaling
    np.testing.assert_allclose(scalings[0].mean, other.mean, rtol=1e-12)
    np.testing.assert_allclose(scalings[0].scale, other.scale, rtol=1e-9)
    for part in ("train", "validation"):
        data, all_rows = getattr(mine, part), getattr(whole, part)
        if data is None:
            assert validation is None and part == "validation"
            continue
        start, stop = groups.row_cuts(all_rows.n, 6, comm.size)[comm.rank :][:2]
        assert (data.start, data.stop, data.n) == (start, stop, all_rows.n)
        assert data.x[:].tobytes() == all_rows.x[start:stop].tobytes()
        assert (data.y == all_rows.y[start:stop]).all()
        if part == "train":
            assert (data.weights == all_rows.weights[start:stop]).all()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stay_in_file", [False, True])
def test_rows_that_one_rank_has_are_shared_out(
    comm, mpi_tmp_path, monkeypatch, stay_in_file
):
    if stay_in_file:
        monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    x = np.random.default_rng(3).standard_normal((600, 3))
    path = mpi_tmp_path / "rows.npz"
    if comm.rank == 0:
        np.savez(path, X=x, y=np.arange(600.0), id=np.arange(600))
    comm.Barrier()
    how = {"features": "X", "task": "regression", "dtype": "float64", "comm": comm}
    data = pt.load(path, **how, rows="450 <= id < 550 and id != 500").train
    cuts = bounds(99, comm.size)
    assert (data.n, data.start, data.stop) == (99, *cuts[comm.rank :][:2])
    want = np.delete(np.arange(450, 550), 50)[data.start : data.stop]
    assert (data.x[:] == x[want]).all() and (data.y[:, 0] == want).all()


@pytest.mark.mpi(min_size=2)
def test_loading_on_more_ranks_than_groups_is_refused(comm, file):
    with pytest.raises(ConfigError, match=f"virtual_shards to {comm.size} or more"):
        pt.load(file, target="tree", virtual_shards=comm.size - 1, comm=comm)
