"""Time and bandwidth of a backend's hot loops, compared with a plain copy."""

import statistics
import time

import numpy as np

from pympi_train.bench.loops import CLASSES, copy_of, loops_of
from pympi_train.errors import ConfigError

WARM_UP = 2  # untimed calls: compilation, first touch of memory
BATCH = 10  # calls per timing on a GPU, to amortise the synchronisation


def measure(backend, size, dtype="float32", repeats=20):
    """Time every hot loop of a backend.

    Parameters
    ----------
    backend : Backend
    size : int
        Number of elements per array, at least 1000; matrices have about as many.
    dtype : {"float32", "float64"}
    repeats : int
        Number of timings per loop.

    Returns
    -------
    dict
        ``backend``, ``reason``, ``size``, ``dtype``, ``copy_bytes_per_s`` of a plain
        copy of ``size`` elements, and ``kernels``: by name, ``median_s``, ``bytes``,
        ``bytes_per_s`` and ``share_of_copy``, the ratio to the rate of a copy that is
        timed in turn with the loop.

    Raises
    ------
    ConfigError
        If a number is too small or the dtype is another one.

    Notes
    -----
    If the arrays fit into a cache, the rates are those of the cache.
    """
    if size < CLASSES or repeats < 1:
        raise ConfigError(f"size must be at least {CLASSES} and repeats at least 1")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"dtype must be float32 or float64, got {dtype!r}")
    ops = backend.ops
    dtype, found = np.dtype(dtype), {}
    copy = copy_of(ops, size, dtype)
    rates = []
    for name, make in loops_of(ops).items():
        case = make(ops, size, dtype)
        copy_s, case_s = _in_turn(ops, (copy.call, case.call), repeats)
        rates.append(copy.n_bytes / copy_s)
        rate = case.n_bytes / case_s
        found[name] = {
            "median_s": case_s,
            "bytes": case.n_bytes,
            "bytes_per_s": rate,
            "share_of_copy": rate / rates[-1],
        }
    return {
        "backend": backend.name,
        "reason": backend.reason,
        "size": size,
        "dtype": dtype.name,
        "copy_bytes_per_s": statistics.median(rates),
        "kernels": found,
    }


def _in_turn(ops, calls, repeats):
    """Return the median seconds of each of ``calls``, which take turns."""
    wait, batch = (lambda: None), 1
    if ops.ON_DEVICE:
        from pympi_train.backends.cuda.device import wait_for_device

        wait, batch = wait_for_device, BATCH
    seconds = [[] for _ in calls]
    for _ in range(WARM_UP + repeats):
        for call, taken in zip(calls, seconds):
            wait()
            start = time.perf_counter()
            for _ in range(batch):
                call()
            wait()
            taken.append((time.perf_counter() - start) / batch)
    return [statistics.median(taken[WARM_UP:]) for taken in seconds]
