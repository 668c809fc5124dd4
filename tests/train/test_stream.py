"""Training from a stream: the bits of training from memory, in every format."""

import csv
import gzip
import warnings

import numpy as np
import pyarrow
import pytest
from named_arrays import save_arrays
from pyarrow import parquet

import pympi_train as pt
from pympi_train.data.formats import streamed
from pympi_train.data.formats.arrays import streaming
from pympi_train.errors import DataError

N, D = 700, 4
HOW = {"order": "window", "order_shards": 4, "order_window": 30}


def write(path, columns):
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table(columns), path, row_group_size=45)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            separator = "," if path.suffix == ".csv" else "\t"
            writer = csv.writer(file, delimiter=separator)
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values())))
    else:
        save_arrays(path, columns, chunks=20)


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((N, D)).astype(np.float32).astype(np.float64)
    columns = {f"x{i}": column for i, column in enumerate(x.T)}
    columns["town"] = rng.choice(["a", "b", "c"], N)
    columns["y"] = (x @ [1, -2, 0.5, 0] + rng.standard_normal(N) > 0).astype(int)
    return columns


@pytest.fixture(params=["parquet", "csv", "tsv", "h5", "zarr", "npz"])
def file(request, mpi_tmp_path, comm, columns, monkeypatch):
    monkeypatch.setattr(streamed, "KEPT_BYTES", 0)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 40 * 8 * D)
    path = mpi_tmp_path / f"rows.{request.param}"
    if comm.rank == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(path, columns)
    comm.Barrier()
    return path


def trained(path, comm, **how):
    """Return the parameters after three epochs, and the Loaded."""
    loaded = pt.load(path, comm=comm, **how)
    model = pt.Logistic(loaded.train.x.shape[1])
    with pt.Trainer(model, pt.SGD(0.1), batch_size=64, comm=comm) as trainer:
        trainer.fit(loaded.train, epochs=3)
        return trainer.params.copy(), loaded


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "how",
    [
        {"drop": "town"},
        {"drop": "town", "validation": 0.25, "standardize": True},
        {"categorical": "town", "rows": "x1 < 1 and town != 'b'"},
    ],
    ids=["plain", "scaled", "categories"],
)
def test_bits_are_those_of_rows_in_memory(comm, file, how):
    found, data = trained(file, comm, **how, **HOW, memory="stream")
    want, plain = trained(file, comm, **how, **HOW, memory="in-memory")
    assert found.tobytes() == want.tobytes()
    assert data.train.n == plain.train.n
    x = data.train.x
    if comm.size > 1 and "rows" not in how:
        assert x[:].tobytes() == plain.train.x[:].tobytes()
    if data.validation is not None:
        held = data.validation.x[:]
        assert held.tobytes() == plain.validation.x[:].tobytes()


@pytest.mark.mpi(min_size=2)
def test_exact_mode_has_the_bits_of_one_rank(comm, file, request):
    from mpi4py import MPI

    how = {"drop": "town", "standardize": True, "virtual_shards": 8, **HOW}
    if file.suffix in (".csv", ".tsv"):
        with pytest.raises(DataError, match="in exact mode, memory = .stream. is for"):
            pt.load(file, comm=comm, **how, memory="stream")
        return
    mine = pt.load(file, comm=comm, **how, memory="stream").train
    whole = pt.load(file, comm=MPI.COMM_SELF, **how, memory="in-memory").train
    assert mine.x[:].tobytes() == whole.x[mine.start : mine.stop].tobytes()


@pytest.mark.mpi(min_size=2)
def test_blocks_are_decoded_about_once_an_epoch(comm, file):
    loaded = pt.load(file, comm=comm, drop="town", **HOW, memory="stream")
    rows = loaded.train.x._array
    if not isinstance(rows, streamed.StreamedRows):
        assert file.suffix in (".h5", ".npz")  # mapped
        return
    n_blocks, before = len(rows._starts) - 1, rows.n_decoded
    with pt.Trainer(pt.Logistic(D), pt.SGD(0.1), batch_size=64, comm=comm) as trainer:
        trainer.fit(loaded.train, epochs=1)
    assert rows.n_decoded - before <= 2 * n_blocks + HOW["order_shards"]
    assert len(rows._kept) <= rows._most


@pytest.mark.mpi(min_size=2)
def test_rows_move_and_blocks_are_still_decoded_about_once(comm, file):
    loaded = pt.load(file, comm=comm, drop="town", **HOW, memory="stream").train
    assert loaded.can_move == (file.suffix not in (".csv", ".tsv"))
    if not loaded.can_move:
        return
    whole = pt.load(file, comm=comm, drop="town", **HOW, memory="in-memory").train
    old = [*comm.allgather(loaded.start), N]
    new = [*range(comm.size), N]  # nearly all rows go to the last rank
    for data in (loaded, whole):
        data.move(old, new, comm)
        assert (data.start, data.stop) == (new[comm.rank], new[comm.rank + 1])
    assert loaded.x[:].tobytes() == whole.x.tobytes()
    assert loaded.y.tobytes() == whole.y.tobytes()
    rows = loaded.x._array
    if isinstance(rows, streamed.StreamedRows):
        n_blocks, before = len(rows._starts) - 1, rows.n_decoded
        with pt.Trainer(pt.Logistic(D), pt.SGD(0.1), batch_size=64, comm=comm) as made:
            made.fit(loaded, epochs=1)
        assert rows.n_decoded - before <= 2 * n_blocks + HOW["order_shards"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["svm", "compressed.npz", "csv.gz"])
def test_formats_that_are_not_streamed(comm, mpi_tmp_path, kind):
    path = mpi_tmp_path / f"rows.{kind}"
    if comm.rank == 0:
        if kind == "svm":
            path.write_text("1 1:1\n0 1:2\n")
        elif kind == "csv.gz":
            path.write_bytes(gzip.compress(b"X,y\n1,0\n2,1\n"))
        else:
            np.savez_compressed(path, X=np.ones((4, 2)), y=np.arange(4) % 2)
    comm.Barrier()
    with pytest.raises(DataError, match='memory = "stream" is for'):
        pt.load(path, comm=comm, order="window", memory="stream")
