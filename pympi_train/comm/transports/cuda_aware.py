"""Whether the MPI library is CUDA-aware: yes, no, or unknown."""

import ctypes
import os

from pympi_train.errors import ConfigError

OVERRIDE = "PYMPI_TRAIN_CUDA_AWARE"
CUDA = 0  # MPIX_GPU_SUPPORT_CUDA of MPICH


def supported():
    """Return whether the library is CUDA-aware, or None if it does not report it.

    The environment variable ``PYMPI_TRAIN_CUDA_AWARE``, set to 1 or 0, takes
    precedence. A library may answer no although the UCX below it supports GPU memory,
    or yes only because it was built with CUDA.

    Raises
    ------
    ConfigError
        If ``PYMPI_TRAIN_CUDA_AWARE`` is set to any other value.

    Notes
    -----
    Call this after MPI has started.
    """
    asked = os.environ.get(OVERRIDE, "").strip().lower()
    if asked in ("0", "1"):
        return asked == "1"
    if asked:
        raise ConfigError(f"{OVERRIDE}: expected 0 or 1, got {asked!r}")
    from mpi4py import MPI

    for library in (ctypes.CDLL(None), ctypes.CDLL(MPI.__file__)):
        answer = _ask(library, MPI.get_vendor()[0])
        if answer is not None:
            return answer
    return None


def _ask(library, vendor):
    """Return the answer of ``library``, or None if it has no such function."""
    # MPICH's older function ends the process if MPICH was built without GPU support.
    if vendor == "Open MPI":
        try:
            return bool(library.MPIX_Query_cuda_support())
        except AttributeError:
            return None
    try:
        query = library.MPIX_GPU_query_support
    except AttributeError:
        return None
    found = ctypes.c_int(0)
    return bool(found.value) if query(CUDA, ctypes.byref(found)) == 0 else None
