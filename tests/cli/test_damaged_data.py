"""Files that disappear, shrink or differ: one message, the same on all ranks, status 2.

Each case runs ``pympi-train train`` on every rank, and damages the files meanwhile.
"""

import os
import re
import shutil
from functools import partial

import numpy as np
import pyarrow
import pytest
import zarr
from named_arrays import save_arrays
from pyarrow import parquet

from pympi_train import cli
from pympi_train.data.formats import streamed
from pympi_train.data.formats.arrays import (
    hdf5,
    npy,
    npz,
    stored,
    streaming,
    zarr_store,
)
from pympi_train.data.formats.columns import parquet as parquet_reader
from pympi_train.data.formats.text import compressed_text, csv_file, svm
from pympi_train.train.fit import Fit

CONFIG = """
[data]
train = "p*.{kind}"
{more}
[model]
kind = "logistic"
[train]
epochs = 3
batch_size = 32
"""
STREAM = """
memory = "stream"
order = "window"
order_shards = 4
order_window = 10
"""
READERS = {
    "csv": csv_file,
    "parquet": parquet_reader,
    "h5": hdf5,
    "zarr": zarr_store,
    "npy": npy,
    "npz": npz,
    "svm": svm,
}
N, N_FILES = 120, 3


def columns_of(i):
    x = np.random.default_rng(i).standard_normal((N, 2))
    return {"a": x[:, 0], "b": x[:, 1], "y": (x.sum(axis=1) > 0).astype(int)}


def write(path, columns):
    """Write columns to a file whose suffix says how; beside .npy, one of targets."""
    kind = path.suffix[1:]
    if kind == "parquet":
        parquet.write_table(pyarrow.table(columns), path, row_group_size=10)
    elif kind == "csv":
        rows = zip(*(column.tolist() for column in columns.values()))
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "svm":
        rows = zip(*(columns[name].tolist() for name in ("y", "a", "b")))
        path.write_text("".join(f"{y} 1:{a} 2:{b}\n" for y, a, b in rows))
    elif kind == "npy":
        features = [values for name, values in columns.items() if name != "y"]
        np.save(path, np.stack(features, axis=1))
        np.save(path.with_name(path.name.replace("p", "y", 1)), columns["y"])
    elif kind == "zarr":  # no metadata that warn: a stream may still end in a thread
        group = zarr.open_group(path, mode="w")
        for name, values in columns.items():
            dtype = str if values.dtype.kind == "U" else values.dtype
            chunks = (20, *values.shape[1:])
            group.create_array(name, shape=values.shape, dtype=dtype, chunks=chunks)
            group[name][:] = values
    else:
        save_arrays(path, columns, chunks=20, compressed=kind == "h5")  # .npz: mapped


def damage(path, how):
    """Remove a file, what is after its first half, or chunks of a store."""
    if how == "chunks":
        for name in ("3", "4", "5"):
            (path / "a" / "c" / name).unlink()
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        (shutil.rmtree if path.is_dir() else os.remove)(path)


@pytest.fixture
def folder(mpi_tmp_path, comm, monkeypatch):
    """A folder that is the current one on all ranks. Collective."""
    monkeypatch.chdir(mpi_tmp_path)
    comm.Barrier()
    yield mpi_tmp_path
    comm.Barrier()


@pytest.fixture
def refused(folder, comm, monkeypatch, pympi_train):
    """Writes files and trains; returns the text of the error, the same on all ranks."""
    errors, fail = [], cli._fail
    monkeypatch.setattr(
        cli, "_fail", lambda e, *rest: errors.append(str(e)) or fail(e, *rest)
    )

    def run(kind, tables, more=""):
        if comm.rank == 0:
            for i, table in enumerate(tables):
                write(folder / f"p{i}.{kind}", table)
            target = {"npy": 'target = "y*.npy"', "svm": ""}.get(kind, 'target = "y"')
            config = CONFIG.format(kind=kind, more=target + more)
            (folder / "c.toml").write_text(config)
        comm.Barrier()
        done = pympi_train("train", "c.toml")
        assert done.status == 2, done
        (text,) = errors
        assert comm.allgather(text) == [text] * comm.size
        last = f"pympi-train: {text}\n"
        assert done.err.endswith(last) if comm.rank == 0 else done.err == ""
        return text

    return run


def after(work, comm, path, how):
    """Return ``work``, after which rank 0 damages a file while the others wait."""

    def and_damage(*args, **kwargs):
        found = work(*args, **kwargs)
        comm.Barrier()
        if comm.rank == 0 and path.exists():
            damage(path, how)
        comm.Barrier()
        return found

    return and_damage


def refuse_one(kind, path, comm, monkeypatch):
    """Let the last rank fail to open a file."""

    def refusing(opener):
        def opened(name, *args, **kwargs):
            if comm.rank == comm.size - 1 and str(name).endswith(path):
                raise OSError(5, "Input/output error")
            return opener(name, *args, **kwargs)

        return opened

    if kind == "parquet":
        monkeypatch.setattr(parquet, "ParquetFile", refusing(parquet.ParquetFile))
        monkeypatch.setattr(parquet, "read_metadata", refusing(parquet.read_metadata))
    else:
        module, name = {
            "csv": (compressed_text, "plain"),
            "h5": (hdf5, "_open"),
            "zarr": (zarr_store, "_open"),
            "npy": (stored.np, "memmap"),
            "npz": (stored.np, "memmap"),
            "svm": (compressed_text, "plain"),
        }[kind]
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", READERS)
def test_gone_between_listing_and_reading(folder, comm, refused, monkeypatch, kind):
    reader, path = READERS[kind], folder / f"p1.{kind}"
    monkeypatch.setattr(reader, "of_each", after(reader.of_each, comm, path, "gone"))
    text = refused(kind, map(columns_of, range(N_FILES)))
    assert f"p1.{kind}" in text
    assert "no such file" in text.lower() or "cannot be read" in text


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["csv", "parquet", "h5", "npy", "npz", "svm"])
def test_cut_between_listing_and_reading(folder, comm, refused, monkeypatch, kind):
    reader, path = READERS[kind], folder / f"p1.{kind}"
    monkeypatch.setattr(reader, "of_each", after(reader.of_each, comm, path, "cut"))
    text = refused(kind, map(columns_of, range(N_FILES)))
    assert f"p1.{kind}" in text


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", READERS)
def test_one_rank_cannot_open(folder, comm, refused, monkeypatch, kind):
    refuse_one(kind, f"p2.{kind}", comm, monkeypatch)
    text = refused(kind, map(columns_of, range(N_FILES)))
    assert f"p2.{kind}" in text and "cannot be read" in text
    assert "Input/output error" in text


OTHER = {
    "column": ({"a": "z"}, {}),
    "text": ({}, {"a": np.array(["u", "v"] * (N // 2))}),
    "width": ({}, {"a": np.ones((N, 2))}),
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "svm"])
def test_one_file_of_another_schema(refused, kind, other):
    names, values = OTHER[other]
    spoiled = columns_of(1) | values
    spoiled = {names.get(name, name): column for name, column in spoiled.items()}
    if kind == "npy":
        if other == "column":  # an .npy has no names
            spoiled["c"] = spoiled["y"] * 2.0
        elif other == "width":
            spoiled["a"] = spoiled["a"][:, 0]
            spoiled["d"] = spoiled["a"]
    elif kind in ("csv", "parquet") and other == "width":
        del spoiled["a"]
    text = refused(kind, [columns_of(0), spoiled, columns_of(2)])
    assert f"p1.{kind}" in text


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "kind, how, words",
    [
        ("zarr", "chunks", "chunks disappeared while they were being read"),
        ("zarr", "gone", "cannot be read"),
        ("parquet", "cut", "cannot be read as Parquet"),
        ("parquet", "gone", "cannot be read as Parquet"),
        ("csv", "cut", "became shorter|changed while it was being read"),
        ("csv", "gone", "cannot be read"),
        ("h5", "cut", "cannot be read"),
        ("h5", "gone", "no such file"),
    ],
)
def test_damaged_while_a_training_streams(
    folder, comm, refused, monkeypatch, kind, how, words
):
    monkeypatch.setattr(streamed, "KEPT_BYTES", 0)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 20 * 16)
    read_csv = partial(csv_file.read_csv, chunk_bytes=500)
    monkeypatch.setattr(csv_file, "read_csv", read_csv)
    begin = after(Fit.begin_epoch, comm, folder / f"p1.{kind}", how)
    monkeypatch.setattr(Fit, "begin_epoch", begin)
    text = refused(kind, map(columns_of, range(N_FILES)), STREAM)
    assert re.search(f"p1.{kind}.*({words})", text), text
