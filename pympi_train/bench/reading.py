"""Reading rows of a mapped file, compared with a plain sequential read of it."""

import os
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pympi_train.data.epoch import EpochPlan
from pympi_train.data.formats.arrays.npy import stored_npy
from pympi_train.data.formats.arrays.stored import map_rows
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.data.windows.choice import choose_windows
from pympi_train.errors import DataError
from pympi_train.random import bits

ROW_BYTES = 3072
BATCH_ROWS = 256
BUFFER_BYTES = 2**22  # a call of read
FULL_S = 3.0  # the order "full" is stopped after these seconds
SAMPLES = 200  # pages that are looked for in the cache
WAYS = ("file", "window", "full")


def measure(folder, n_bytes=10**9, rounds=3):
    """Time reads of a file of random numbers in ``folder``, which is then removed.

    Parameters
    ----------
    folder : path
        On the file system to measure.
    n_bytes : int
        Approximate size of the file, at least 2**20.
    rounds : int
        Each side is timed so often, all sides in turn.

    Returns
    -------
    dict
        bytes, rows, row_bytes, batch_rows, order_shards, order_window, cached (the
        largest part of the file that was in the page cache before a timing; None if
        unknown), and "ways": for each of "read", "file", "window" and "full" the median
        of bytes_per_s, and times_read, the median over rounds of its ratio to "read".

    Raises
    ------
    DataError
        If the file cannot be written, or the disk lacks the space.

    Notes
    -----
    Before each timing, the file is dropped from this node's page cache by posix_fadvise
    with POSIX_FADV_DONTNEED, while no process maps it. Caches of disks, servers and
    hypervisors are not emptied.

    Not collective.
    """
    n = max(n_bytes, 2**20) // ROW_BYTES
    with random_file(Path(folder), n) as path:
        order = choose_windows(n, ROW_BYTES)
        out = np.empty((BATCH_ROWS, ROW_BYTES // 4), np.float32)
        rates, cached = {}, []
        for _ in range(rounds):
            cached.append(drop_cached(path))
            rates.setdefault("read", []).append(read_plain(path))
            for name in WAYS:
                cached.append(drop_cached(path))
                which = order if name == "window" else None
                rate = read_batches(path, n, name == "file", which, out)
                rates.setdefault(name, []).append(rate)
    ratio = {name: np.divide(found, rates["read"]) for name, found in rates.items()}
    return {
        "bytes": n * ROW_BYTES,
        "rows": n,
        "row_bytes": ROW_BYTES,
        "batch_rows": BATCH_ROWS,
        "order_shards": order.n_shards,
        "order_window": order.window_rows,
        "cached": None if None in cached else max(cached),
        "ways": {
            name: {
                "bytes_per_s": float(np.median(found)),
                "times_read": float(np.median(ratio[name])),
            }
            for name, found in rates.items()
        },
    }


@contextmanager
def random_file(folder, n):
    """Yield the path of a new .npy of ``n`` random rows; remove it at the end."""
    path = folder / f"pympi-train-bench-io-{secrets.token_hex(4)}.npy"
    try:
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < 1.1 * n * ROW_BYTES:
            raise DataError(
                f"{folder}: {free_bytes:,} bytes are free, and the file would take "
                f"{n * ROW_BYTES:,}; choose a smaller --size or another folder"
            )
        _write(path, n)
        yield path
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)


def _write(path, n):
    """Write random numbers, so that no file system can compress them."""
    shape, words = (n, ROW_BYTES // 4), ROW_BYTES // 8
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    step = max(1, BUFFER_BYTES // ROW_BYTES)
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in range(0, n, step):
            count = min(step, n - row)
            file.write(bits(0, 0, 0, row * words, count * words).data)
        file.flush()
        os.fsync(file.fileno())


def drop_cached(path):
    """Drop a file from the page cache; return the part of it that is still there.

    None if the system cannot say.
    """
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return _cached(file.fileno())


def _cached(fd):
    """Return the part of a file that is in the page cache, by samples; or None."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    size_bytes, found = os.fstat(fd).st_size, 0
    for i in range(SAMPLES):
        try:
            os.preadv(fd, [bytearray(1)], size_bytes * i // SAMPLES, os.RWF_NOWAIT)
            found += 1
        except BlockingIOError:
            pass
        except OSError:  # the file system cannot say
            return None
    return found / SAMPLES


def read_plain(path):
    """Return the bytes a second of reading the file from start to end."""
    buffer, n_bytes, start_s = np.empty(BUFFER_BYTES, np.uint8), 0, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            n_bytes += count
    return n_bytes / (time.perf_counter() - start_s)


def read_batches(path, n, in_file_order, order, out):
    """Return the bytes a second of copying batches to ``out``."""
    from mpi4py import MPI

    start_s = time.perf_counter()
    rows = MappedRows(map_rows(stored_npy(path), 0, n), np.ones(n, bool), None, "f4")
    source = MappedDataset(rows, None, comm=MPI.COMM_SELF)
    plan = EpochPlan(n, 0, 0, 0, n, BATCH_ROWS, order)
    memory, n_bytes = source.room(0)._replace(x=out), 0
    for index in range(plan.n_batches):
        if in_file_order:
            start = index * BATCH_ROWS
            wanted = slice(start, min(start + BATCH_ROWS, n))
        else:
            source.read_ahead(plan.read_ahead(index))
            wanted = plan.batch(index)
        n_bytes += source.batch(wanted, memory).x.nbytes
        if time.perf_counter() - start_s > FULL_S and not in_file_order and not order:
            break
    return n_bytes / (time.perf_counter() - start_s)
