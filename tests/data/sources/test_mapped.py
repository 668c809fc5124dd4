"""Features that stay in their file train with the bits of those in memory."""

import tracemalloc

import gpus
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.data.groups import regrouped
from pympi_train.data.loading import finish
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.errors import DataError

N, D = 103, 5


@pytest.fixture(params=["npy", "npz", "fortran"])
def file(request, mpi_tmp_path, comm):
    """A file of float64, and the arguments that read it."""
    rng = np.random.default_rng(3)
    x, y = 1e2 + rng.standard_normal((N, D)) * [1, 1e-2, 0, 3, 9], rng.integers(0, 3, N)
    kind = request.param
    path = mpi_tmp_path / f"x.{kind.replace('fortran', 'npy')}"
    if comm.rank == 0:
        if kind == "npz":
            np.savez(path, X=x, y=y)
        else:
            np.save(path, np.asfortranarray(x) if kind == "fortran" else x)
            np.save(mpi_tmp_path / "y.npy", y)
    comm.Barrier()
    return path, {"target": "y" if kind == "npz" else "y.npy", "comm": comm}


def trained(file, comm, backend="numpy", **kwargs):
    """Return the data, the parameters after a training, and predictions."""
    path, how = file
    data = pt.load(path, **how, validation=0.2, **kwargs)
    parallel = pt.Parallel(timeout_s=0)
    with pt.Trainer(
        pt.MLP(D, [4], 3, dtype=data.schema.dtype),
        pt.Adam(0.02),
        batch_size=24,
        micro_batch_size=5,
        parallel=parallel,
        backend=backend,
        comm=comm,
    ) as trainer:
        records = trainer.fit(data.train, data.validation, epochs=2)
        outputs = trainer.predict(data.validation)
        return data, trainer.params.copy(), outputs, records[-1]["validation_loss"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "kwargs", [{}, {"standardize": True}, {"standardize": True, "dtype": "float64"}]
)
def test_bits_are_those_of_rows_in_memory(comm, file, monkeypatch, kwargs):
    data, *want = trained(file, comm, **kwargs)
    assert isinstance(data.train.x, np.ndarray)
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    mapped, *found = trained(file, comm, **kwargs)
    for a, b in ((mapped.train, data.train), (mapped.validation, data.validation)):
        assert isinstance(a.x, MappedRows) or not len(a)
        assert (a.x.shape, a.x.dtype) == (b.x.shape, b.x.dtype)
        assert_array_equal(a.x[:], b.x)
        assert_array_equal(np.asarray(a.x), b.x)
    for a, b in zip(found, want):
        assert_array_equal(a, b)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kwargs", [{}, {"standardize": True, "validation": 0.3}])
@pytest.mark.parametrize("moves_at", ["load", "fit"])
def test_rows_that_move_to_their_groups_stay_in_the_file(
    comm, file, monkeypatch, moves_at, kwargs
):
    path, how = file
    shards = {"virtual_shards": 8} if moves_at == "load" else {}
    exact = pt.Parallel(reduction="exact", virtual_shards=8, timeout_s=0)
    found = []
    for limit in (0, 2**20):
        monkeypatch.setattr(finish, "RESIDENT_BYTES", limit)
        data = pt.load(path, **how, **kwargs, **shards)
        assert isinstance(data.train, MappedDataset) == (limit == 0)
        with pt.Trainer(
            pt.Softmax(D, 3), pt.SGD(0.1), batch_size=16, parallel=exact, comm=comm
        ) as trainer:
            seen = []
            place = trainer._placement.place
            trainer._placement.place = lambda s: seen.append(place(s)) or seen[-1]
            trainer.fit(data.train, data.validation, epochs=2)
            assert all(isinstance(s, MappedDataset) == (limit == 0) for s in seen)
            found.append(trainer.params.copy())
    assert_array_equal(*found)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("why", ["gone", "shorter"])
def test_a_file_that_is_gone_meanwhile_is_told_by_all(
    comm, mpi_tmp_path, monkeypatch, why
):
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    path = mpi_tmp_path / "x.npy"
    if comm.rank == 0:
        np.save(path, np.ones((N, D)))
        np.save(mpi_tmp_path / "y.npy", np.arange(N) % 3)
    comm.Barrier()
    monkeypatch.chdir(mpi_tmp_path)
    data = pt.load("x.npy", target="y.npy", comm=comm).train
    monkeypatch.chdir("/")  # nobody minds: its place is known
    regrouped(data, 7, comm)
    comm.Barrier()
    if comm.rank == 0:
        path.rename(path.with_suffix(".old"))
        if why == "shorter":
            path.write_bytes(b"x")
    comm.Barrier()
    with pytest.raises(DataError, match="cannot be read|ends early"):
        regrouped(data, 7, comm)


@pytest.mark.gpu
@pytest.mark.parametrize("is_resident", [True, False])
def test_on_a_gpu(tmp_path, monkeypatch, is_resident):
    from mpi4py import MPI

    from pympi_train.data.feeds import device_feed

    gpus.use()
    if not is_resident:
        monkeypatch.setattr(device_feed, "RESIDENT_SHARE", 0)
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "x.npz", X=rng.random((N, D)), y=rng.integers(0, 3, N))
    file = tmp_path / "x.npz", {"target": "y", "comm": MPI.COMM_SELF}
    _, *want = trained(file, MPI.COMM_SELF, "cuda", standardize=True)
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    _, *found = trained(file, MPI.COMM_SELF, "cuda", standardize=True)
    for a, b in zip(found, want):
        assert_array_equal(a, b)


@pytest.mark.parametrize("virtual_shards", [None, 2])
def test_memory_is_that_of_a_chunk(tmp_path, monkeypatch, virtual_shards):
    from mpi4py import MPI

    n, d = 200_000, 40  # 64 MB in the file, 32 MB in memory
    np.save(tmp_path / "x.npy", np.ones((n, d)))
    np.save(tmp_path / "y.npy", np.arange(n) % 3)
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 2**20)
    tracemalloc.start()
    try:
        how = {"target": "y.npy", "standardize": True, "comm": MPI.COMM_SELF}
        how.update(validation=0.1, virtual_shards=virtual_shards)
        data = pt.load(tmp_path / "x.npy", **how)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(data.train.x, MappedRows)
    assert peak < 2.5e7  # labels take 8 bytes a row; chunks 4 MB and their copies


def test_what_is_not_finite_once_cast_is_found(tmp_path, monkeypatch):
    from mpi4py import MPI

    x = np.ones((20, 2))
    x[7, 1] = 1e300
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 0)
    with pytest.raises(DataError, match="too large for float32"):
        pt.load(tmp_path / "x.npy", target="y.npy", comm=MPI.COMM_SELF)
