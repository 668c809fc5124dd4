"""Arrays of many batches combined over ranks, of which some have none."""

import numpy as np

from pympi_train.comm.checks import agreed_within, together
from pympi_train.errors import ConfigError, DataError

COMBINE = {"sum": np.add, "min": np.minimum, "max": np.maximum}


def reduce_arrays(parts, op, comm):
    """Return arrays of one shape combined over all ranks, on every rank.

    Parameters
    ----------
    parts : iterable of array_like
        Of this rank; possibly none.
    op : {"sum", "min", "max"}
    comm : MPI.Comm

    Raises
    ------
    DataError
        If no rank has a part, or shapes differ.
    ConfigError
        For another ``op``.

    Notes
    -----
    Collective.
    """
    from mpi4py import MPI

    total = None
    with together(comm):
        if op not in COMBINE:
            raise ConfigError(f"op: expected one of {', '.join(COMBINE)}, got {op!r}")
        for part in parts:
            part = np.asarray(part)
            if part.dtype.kind not in "biuf":
                raise DataError(f"expected an array of numbers, got dtype {part.dtype}")
            if part.dtype.kind == "b" or (op == "sum" and part.dtype.kind in "iu"):
                part = part.astype(np.int64)
            if total is not None and part.shape != total.shape:
                raise DataError(
                    f"the results of batches have the shapes {total.shape} and "
                    f"{part.shape}; expected one shape"
                )
            total = part if total is None else COMBINE[op](total, part)
    kinds = comm.allgather(None if total is None else (total.shape, total.dtype.str))
    known = [kind for kind in kinds if kind is not None]
    if len({shape for shape, _ in known}) != 1:
        text = f"expected results of one shape on all ranks, got {known[:3]}"
        raise agreed_within(comm, DataError(text))
    dtype = np.result_type(*(np.dtype(kind) for _, kind in known))
    if total is None:
        total = np.full(known[0][0], _neutral(op, dtype), dtype=dtype)
    total = np.array(total, dtype=dtype, order="C")
    comm.Allreduce(MPI.IN_PLACE, total, op=getattr(MPI, op.upper()))
    return total


def _neutral(op, dtype):
    """Return the value that does not change a result."""
    if op == "sum":
        return 0
    if dtype.kind == "f":
        return np.inf if op == "min" else -np.inf
    limits = np.iinfo(dtype)
    return limits.max if op == "min" else limits.min
