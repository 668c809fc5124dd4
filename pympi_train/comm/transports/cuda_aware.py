"""Whether the MPI library reads and writes a GPU's memory: yes, no, or unknown."""

import ctypes
import os

from pympi_train.errors import ConfigError

OVERRIDE = "PYMPI_TRAIN_CUDA_AWARE"
CUDA = 0  # MPIX_GPU_SUPPORT_CUDA of MPICH


def supported():
    """Return True, False, or None where the library does not say.

    ``PYMPI_TRAIN_CUDA_AWARE`` set to 1 or 0 is believed in its place: a library may
    say no though UCX below it can, or yes for what it was built with alone.

    Raises
    ------
    ConfigError
        If it is set to anything else.

    Notes
    -----
    To be called once MPI has started.
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
    """Return what ``library`` says, None if it has no such question."""
    # MPICH's older question ends the process where it was built without a GPU.
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
