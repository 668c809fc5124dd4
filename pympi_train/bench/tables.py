"""Reading and streaming tables, compared with pyarrow alone and with rows in memory."""

import os
import secrets
import shutil
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from pympi_train.data.formats.columns.parquet import release_memory
from pympi_train.data.formats.libraries import load_library
from pympi_train.data.formats.read import read_rows
from pympi_train.data.loading.load import load
from pympi_train.errors import DataError
from pympi_train.models.mlp import MLP
from pympi_train.optim.sgd import SGD
from pympi_train.train.trainer import Trainer

FEATURES = 256
HIDDEN = 256
GROUP_ROWS = 1 << 14
DTYPE = "float32"
TEXT_BYTES = 11  # of a number in a .csv, at most


def measure(folder, format_, n_bytes=10**9, rounds=3):
    """Time reads of a table in ``folder``, and epochs of training from a stream of it.

    Parameters
    ----------
    folder : path
        On the file system to measure. The file is removed at the end.
    format_ : {"parquet", "csv"}
    n_bytes : int
        Approximate size of the rows in memory: float32, 256 features and a target.
    rounds : int
        Each way is timed so often, all ways in turn.

    Returns
    -------
    dict
        bytes, rows, features, group_rows, and "ways": for each the median seconds
        (``median_s``), the median CPU seconds of all threads (``cpu_s``), the way that
        it is compared with (``beside``) and the medians over rounds of the ratios to it
        (``times``, ``cpu_times``). The ways are: "pyarrow", all columns as a table;
        "matrix", pyarrow and a copy to a float32 matrix in rows; "rows", the reader of
        this package; "in memory" and "stream", an epoch of an MLP.

    Raises
    ------
    DataError
        If pyarrow is absent, the file cannot be written, or the disk lacks the space.

    Notes
    -----
    All is timed on one thread, except for the read-ahead of the stream. Files are in
    the page cache. On a busy machine, CPU seconds say more: a stream whose thread finds
    a free core takes the seconds of its slower thread.

    Not collective.
    """
    from mpi4py import MPI

    n = max(GROUP_ROWS, n_bytes // (4 * (FEATURES + 1)))
    with random_table(Path(folder), format_, n) as path:
        options = {"target": "y", "target_kind": "number", "dtype": DTYPE}
        ways = {
            "pyarrow": partial(_table, path, format_),
            "matrix": lambda: _matrix(_table(path, format_)),
            "rows": partial(read_rows, str(path), MPI.COMM_SELF, **options),
        }
        found = _timed(ways, rounds, "pyarrow", release_memory)
        with _epoch(path, "in-memory") as memory, _epoch(path, "stream") as stream:
            ways = {"in memory": memory, "stream": stream}
            found |= _timed(ways, rounds, "in memory")
    return {
        "bytes": 4 * n * (FEATURES + 1),
        "rows": n,
        "features": FEATURES,
        "group_rows": GROUP_ROWS,
        "ways": found,
    }


def _timed(ways, rounds, beside, prepare=lambda: None):
    """Return the timings of each way, and their ratios to those of one of them."""
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            prepare()
            start = time.perf_counter(), time.process_time()
            way()
            stop = time.perf_counter(), time.process_time()
            times[name].append(np.subtract(stop, start))
    return {
        name: {
            "median_s": float(np.median(found, axis=0)[0]),
            "cpu_s": float(np.median(found, axis=0)[1]),
            "beside": beside,
            "times": float(np.median(np.divide(found, times[beside]), axis=0)[0]),
            "cpu_times": float(np.median(np.divide(found, times[beside]), axis=0)[1]),
        }
        for name, found in times.items()
    }


def _table(path, format_):
    if format_ == "parquet":
        return load_library("pyarrow.parquet", path).read_table(path, use_threads=False)
    from pyarrow import csv

    return csv.read_csv(path, read_options=csv.ReadOptions(use_threads=False))


def _matrix(table):
    out = np.empty((table.num_rows, table.num_columns), DTYPE)
    for i, column in enumerate(table.columns):
        out[:, i] = column.to_numpy()
    return out


@contextmanager
def _epoch(path, memory):
    """Yield a function that trains an epoch on the rows of a file."""
    from mpi4py import MPI

    comm, how = MPI.COMM_SELF, {"task": "regression", "order": "window"}
    data = load(path, target="y", memory=memory, comm=comm, **how).train
    model = MLP(FEATURES, [HIDDEN], 1, task="regression")
    with Trainer(model, SGD(1e-4), backend="numpy", comm=comm) as trainer:
        trainer.fit(data, epochs=1)
        yield partial(trainer.fit, data, epochs=1)


@contextmanager
def random_table(folder, format_, n):
    """Yield the path of a new table of ``n`` rows; remove it at the end."""
    parquet = load_library("pyarrow.parquet", "bench io of tables")
    path = folder / f"pympi-train-bench-io-{secrets.token_hex(4)}.{format_}"
    try:
        number_bytes = 4 if format_ == "parquet" else TEXT_BYTES
        most_bytes = 1.1 * n * (FEATURES + 1) * number_bytes
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < most_bytes:
            raise DataError(
                f"{folder}: {free_bytes:,} bytes are free, and the file would take "
                f"{most_bytes:,.0f}; choose a smaller --size or another folder"
            )
        _write(path, parquet if format_ == "parquet" else None, n)
        yield path
    except OSError as error:
        raise DataError(f"{folder}: {os.strerror(error.errno)}") from error
    finally:
        path.unlink(missing_ok=True)


def _write(path, parquet, n):
    """Write random numbers, a row group at a time."""
    import pyarrow
    from pyarrow import csv

    names = [*(f"x{i}" for i in range(FEATURES)), "y"]
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    rng = np.random.default_rng(0)
    kind = parquet.ParquetWriter if parquet else csv.CSVWriter
    with kind(path, schema) as writer:
        for start in range(0, n, GROUP_ROWS):
            shape = len(names), min(GROUP_ROWS, n - start)
            columns = [*rng.random(shape, np.float32)]
            writer.write_table(pyarrow.table(columns, schema=schema))
