"""Sparse data sets: made of SciPy's matrices, selected, moved and kept in files."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.data.groups import regrouped
from pympi_train.errors import ConfigError, DataError

sparse = pytest.importorskip("scipy.sparse")


def matrix(n=20, d=7, seed=0):
    return sparse.random_array(
        (n, d), density=0.3, format="csr", rng=np.random.default_rng(seed)
    )


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def test_batches_are_rows_of_the_matrix(alone):
    x, y = matrix(), np.arange(20) % 2
    data = pt.SparseDataset(x, y, weights=np.ones(20), comm=alone)
    assert data.is_sparse and data.is_plain and len(data) == 20
    for rows in (slice(3, 9), np.array([7, 1, 7], np.intp)):
        batch = data.batch(rows, data.room(8) if not isinstance(rows, slice) else None)
        assert_array_equal(batch.x.toarray(), x.toarray()[rows])
        assert_array_equal(batch.y, y[rows])
    assert data.nbytes < x.toarray().nbytes + 16 * 20 + 16 * 20


def test_what_is_no_sparse_matrix(alone):
    y = np.zeros(20)
    with pytest.raises(DataError, match="must be a sparse matrix, got ndarray"):
        pt.SparseDataset(np.eye(20), y, comm=alone)
    with pytest.raises(DataError, match="20 rows of features but 3 of targets"):
        pt.SparseDataset(matrix(), np.zeros(3), comm=alone)
    bad = matrix()
    bad.data[2] = np.inf
    with pytest.raises(DataError, match="expected a finite number, found inf"):
        pt.SparseDataset(bad, y, comm=alone)
    twice = sparse.csr_matrix(([1.0, 2.0], ([0, 0], [3, 3])), shape=(20, 7))
    data = pt.SparseDataset(twice, y, comm=alone)
    assert data.batch(slice(0, 1)).x.toarray()[0, 3] == 3.0


def test_a_model_of_dense_rows_refuses_them(alone):
    class Dense(pt.Model):
        layout = pt.Layout([pt.Tensor("w", (7, 1))], "float64")

        def loss(self, params, batch):
            return 0.0

        def gradient(self, params, grads):
            grads[0][...] = 0

        def predict(self, params, x):
            return x @ params[0]

    data = pt.SparseDataset(matrix(), np.zeros((20, 1)), comm=alone)
    with pt.Trainer(Dense(), pt.SGD(0.1), backend="numpy", comm=alone) as trainer:
        with pytest.raises(ConfigError, match="this model takes dense rows"):
            trainer.fit(data, epochs=1)


def test_large_rows_stay_in_their_file(alone, tmp_path, monkeypatch):
    from pympi_train.data.loading import finish

    x, y = matrix(50, 9), np.arange(50) % 2
    arrays = {"indptr": x.indptr, "indices": x.indices.astype("i4"), "y": y}
    np.savez(
        tmp_path / "a.npz", data=x.data, shape=x.shape, format=b"csr", **arrays
    )
    results = []
    for resident_bytes in (2**28, 0):
        monkeypatch.setattr(finish, "RESIDENT_BYTES", resident_bytes)
        for standardize, dtype in ((True, "float32"), (False, "float64")):
            how = {"standardize": standardize, "dtype": dtype, "validation": 0.2}
            loaded = pt.load(tmp_path / "a.npz", sparse=True, comm=alone, **how)
            rows = np.array([3, 30, 4], np.intp)
            batch = loaded.train.batch(rows, loaded.train.room(3))
            assert batch.x.dtype == dtype
            results.append((type(loaded.train.x).__name__, batch.x.toarray()))
    kinds, rows = zip(*results)
    assert kinds == ("CSR", "CSR", "FileCSR", "CSR")
    assert_array_equal(rows[0], rows[2])
    assert_array_equal(rows[1], rows[3])


@pytest.mark.mpi(min_size=2)
def test_rows_move_with_their_entries(comm):
    x, y = matrix(23), np.arange(23.0)[:, None]
    cuts = np.sort(np.random.default_rng(3).integers(0, 24, comm.size - 1))
    own = slice(*np.array([0, *cuts, 23])[comm.rank : comm.rank + 2])
    data = pt.SparseDataset(x[own], y[own], comm=comm)
    moved = regrouped(data, 5, comm)
    there = slice(moved.start, moved.stop)
    assert moved.n == 23 and isinstance(moved, pt.SparseDataset)
    assert_array_equal(moved.x.toarray(), x.toarray()[there])
    assert_array_equal(moved.y, y[there])
    whole = pt.SparseDataset.split(x, y, comm=comm)
    assert_array_equal(whole.x.toarray(), x.toarray()[whole.start : whole.stop])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("virtual_shards", [None, 8])
def test_scaling_counts_absent_entries_and_centres_none(
    comm, mpi_tmp_path, virtual_shards
):
    x = matrix(40, 6).tolil()
    x[:, 4] = 2.5  # constant: not scaled
    x[:, 5] = 0
    x = x.tocsr()
    path = mpi_tmp_path / f"{virtual_shards}.npz"
    if comm.rank == 0:
        arrays = {"indptr": x.indptr, "indices": x.indices, "data": x.data}
        np.savez(path, shape=x.shape, format=b"csr", y=np.arange(40) % 2, **arrays)
    comm.barrier()
    how = {"standardize": True, "dtype": "float64", "virtual_shards": virtual_shards}
    loaded = pt.load(path, sparse=True, comm=comm, **how)
    scale = x.toarray().std(axis=0)
    scale[4:] = 1
    scaling = loaded.schema.preparation.scaling
    assert not scaling.mean.any()
    assert_allclose(scaling.scale, scale, rtol=1e-14)
    own = slice(loaded.train.start, loaded.train.stop)
    assert_allclose(loaded.train.x.toarray(), (x.toarray() / scale)[own], rtol=1e-14)
    assert scaling.scale[4] == scaling.scale[5] == 1
    if virtual_shards:
        from mpi4py import MPI

        alone = pt.load(path, sparse=True, comm=MPI.COMM_SELF, **how)
        one = alone.schema.preparation.scaling.scale
        assert one.tobytes() == scaling.scale.tobytes()
