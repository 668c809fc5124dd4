"""Seconds and bytes per second of the hot loops of a backend, and of a plain copy."""

import statistics
import time

import numpy as np

from pympi_train.bench.loops import CLASSES, copy_of, loops_of
from pympi_train.errors import ConfigError

WARM_UP = 2  # calls that are not timed: compiling, first touch of memory
BATCH = 10  # calls queued at once on a GPU: to wait for each would be timed too


def measure(backend, size, dtype="float32", repeats=20):
    """Time every hot loop of a backend.

    Parameters
    ----------
    backend : Backend
    size : int
        Elements of the arrays, at least 1000; matrices have about as many.
    dtype : {"float32", "float64"}
    repeats : int
        Times that each is timed.

    Returns
    -------
    dict
        ``backend``, ``reason``, ``size``, ``dtype``, ``copy_bytes_per_s`` of a plain
        copy of such an array, and ``kernels``: by name, ``median_s``, ``bytes``,
        ``bytes_per_s`` and ``share_of_copy``, where the copy is timed before each call
        of the loop.

    Raises
    ------
    ConfigError
        If a number is too small or the dtype none of these.

    Notes
    -----
    Where the arrays fit a cache, the rates are the cache's.
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
    """Return the median seconds of each of ``calls``, timed one after the other."""
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
