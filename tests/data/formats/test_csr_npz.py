"""Sparse matrices in .npz files: what is read, and what is refused."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.backends.csr import CSR
from pympi_train.data.formats.read import read_rows
from pympi_train.errors import DataError

GOOD = {
    "indptr": np.array([0, 2, 2, 5], np.int32),
    "indices": np.array([0, 3, 1, 2, 3], np.int32),
    "data": np.array([1.0, -2.0, 3.0, 0.5, 4.0]),
    "shape": np.array([3, 4]),
    "format": b"csr",
    "y": np.array([1, 0, 1]),
}
DENSE = [[1, 0, 0, -2], [0, 0, 0, 0], [0, 3, 0.5, 4]]


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def read(path, comm, sparse=True, **selection):
    selection = {"target": "y", "target_kind": "label", **selection}
    return read_rows(path, comm, sparse=sparse, **selection)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"indices": GOOD["indices"].astype(">i8"), "data": GOOD["data"].astype(">f4")},
        {"indices": np.array([3, 0, 2, 1, 3], np.int32),
         "data": np.array([-2.0, 1.0, 0.5, 3.0, 4.0])},
        {"format": "csr", "data": np.array([1.0, -2, 3, 0.5, 4], np.float16)},
    ],
)
def test_a_matrix_and_its_target(alone, tmp_path, save, changed):
    save(tmp_path / "a.npz", **{**GOOD, **changed})
    rows = read(tmp_path / "a.npz", alone)
    assert isinstance(rows.x, CSR) and rows.x.shape == (3, 4)
    assert_array_equal(rows.x.toarray(), DENSE)
    assert_array_equal(rows.y, GOOD["y"])
    assert_array_equal(read(tmp_path / "a.npz", alone, sparse=False).x, DENSE)


def test_scipy_writes_it_and_reads_it(alone, tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_array(np.array(DENSE))
    sparse.save_npz(tmp_path / "a.npz", matrix)
    rows = read(tmp_path / "a.npz", alone, target=None, need_target=False)
    assert_array_equal(rows.x.toarray(), DENSE)
    assert rows.y is None
    np.savez(tmp_path / "b.npz", **GOOD)  # the form that the docs give
    assert_array_equal(sparse.load_npz(tmp_path / "b.npz").toarray(), DENSE)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"format": b"csc"}, "of form 'csc'; call .tocsr"),
        ({"format": np.array([1, 2])}, "format.*not as in a sparse matrix"),
        ({"format": np.array(["csr"], object)}, "format.*not as in a sparse matrix"),
        ({"shape": np.array([3, 0])}, r"shape \(3, 0\)"),
        ({"shape": np.array([3, 3])}, "row 0 .*columns from 0 to 2, found column 3"),
        ({"indptr": GOOD["indptr"][:-1]}, "indptr.*length 4, found int32 of shape"),
        ({"indptr": np.array([1, 2, 2, 5])}, "indptr.*found 1 to 5"),
        ({"indptr": np.array([0, 2, 2, 6])}, "indptr.*from 0 to 5, found 0 to 6"),
        ({"indptr": np.array([0, 3, 2, 5])}, "row 1 .*ends before its start"),
        ({"indices": np.array([0, 3, 1, 2, -1])}, "indices.*from 0 to 3, found -1"),
        ({"indices": np.array([0, 3, 1, 1, 3], np.int32)}, "row 2 .*comes twice"),
        ({"indices": GOOD["data"]}, "indices.*found float64"),
        ({"data": GOOD["data"][:-1]}, "data.*length 5"),
        ({"data": GOOD["data"] * [1, 1, 1, np.nan, 1]}, "row 2 .*finite.*nan"),
        ({"data": np.array([1, 2, 3, None, 1], object)}, "data.*expected numbers"),
        ({"y": np.array([1, 0])}, "2 rows, but the sparse matrix has 3"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_no_matrix(alone, tmp_path, save, changed, words):
    save(tmp_path / "a.npz", **{**GOOD, **changed})
    with pytest.raises(DataError, match=words):
        read(tmp_path / "a.npz", alone)


def test_what_is_missing(alone, tmp_path):
    without = {name: GOOD[name] for name in GOOD if name != "y"}
    np.savez(tmp_path / "a.npz", **without)
    with pytest.raises(DataError, match="without a target; numpy.savez"):
        read(tmp_path / "a.npz", alone)
    np.savez(tmp_path / "a.npz", **GOOD)
    with pytest.raises(DataError, match="no target array 'z'"):
        read(tmp_path / "a.npz", alone, target="z")
    with pytest.raises(DataError, match="columns of a sparse .npz file have no names"):
        read(tmp_path / "a.npz", alone, features=["x"])
    np.savez(tmp_path / "b.npz", x=np.eye(3), y=GOOD["y"])
    names = [tmp_path / "a.npz", tmp_path / "b.npz"]
    with pytest.raises(DataError, match="b.npz: no sparse matrix, unlike"):
        read(names, alone)
    np.savez(tmp_path / "b.npz", **{**GOOD, "shape": np.array([3, 5])})
    with pytest.raises(DataError, match="b.npz: 5 columns, but"):
        read(names, alone)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="a.npz"):
        read(tmp_path / "a.npz", alone)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("n_files", [1, 2, 5])
def test_each_rank_reads_its_rows(comm, mpi_tmp_path, n_files, compressed):
    rng, paths, whole = np.random.default_rng(n_files), [], []
    for i in range(n_files):
        dense = rng.integers(1, 9, (3 + i, 6)) * (rng.random((3 + i, 6)) < 0.3)
        rows, columns = np.nonzero(dense)
        whole.append(dense)
        paths.append(mpi_tmp_path / f"{i}-{compressed}-{n_files}.npz")
        if comm.rank == 0:
            (np.savez_compressed if compressed else np.savez)(
                paths[-1],
                indptr=np.searchsorted(rows, np.arange(len(dense) + 1)),
                indices=columns,
                data=dense[rows, columns],
                shape=dense.shape,
                format=b"csr",
                y=np.arange(len(dense)),
            )
    comm.barrier()
    rows = read(paths, comm, target_kind="number")
    own = slice(rows.start, rows.stop)
    assert_array_equal(rows.x.toarray(), np.concatenate(whole)[own])
    want = np.concatenate([np.arange(len(dense)) for dense in whole])
    assert_array_equal(rows.y[:, 0], want[own])
