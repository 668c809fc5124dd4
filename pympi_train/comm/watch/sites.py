"""Comparison of collective calls and their call sites in debug mode."""

import os
import sys

from pympi_train.comm.checks import agreed_within
from pympi_train.errors import RankMismatchError

# Collectives whose buffers have the same number of elements on every rank.
EQUAL_COUNTS = frozenset(
    "Allreduce Iallreduce Bcast Ibcast Allgather Iallgather Alltoall Ialltoall Reduce "
    "Ireduce Scan Exscan Reduce_scatter Ireduce_scatter Reduce_scatter_block".split()
)
# Keyword arguments that must be equal on all ranks.
NAMED = ("op", "root")
_GUARD_FILES = ("guard.py", "communicator.py", "recording.py", "sites.py")
_HERE = os.path.dirname(os.path.abspath(__file__))
_COMM = os.path.dirname(_HERE)
_PACKAGE = os.path.dirname(_COMM)


def is_guard(path):
    """Return whether a file is one of those that record the calls of ranks."""
    return os.path.dirname(path) == _HERE and os.path.basename(path) in _GUARD_FILES


def agree_on_call(comm, name, args, kwargs):
    """Raise on every rank unless all ranks are about to make the same call. Collective.

    Raises
    ------
    RankMismatchError
        Names the first rank that differs from rank 0, and both calls.
    """
    from mpi4py import MPI

    where = call_site()
    mine = (comm._begun + 1, name, *shape_of_call(name, args, kwargs), where)
    all_calls = MPI.Intracomm.allgather(comm, mine)
    first, are_same = all_calls[0], same if comm.one_program else same_call
    odd = [rank for rank, call in enumerate(all_calls) if not are_same(call, first)]
    if odd:
        text = (
            f"ranks part ways at collective {comm._begun + 1} of their communicator: "
            f"rank 0 calls {told(first)}, but rank {odd[0]} {told(all_calls[odd[0]])} "
            f"({len(odd)} of {comm.size} ranks differ from rank 0). Every rank has to "
            f"make the same calls in the same order"
        )
        raise agreed_within(comm, RankMismatchError(text))


def call_site():
    """Return (file and function, file:line, ...) of the caller of a guarded method.

    The first entry, the innermost frame outside ``comm``, is compared between ranks.
    It has no line number, because two lines of one function may call the same
    collective. The other entries are for the message: the innermost frame outside
    the guard, and the innermost frame outside ``comm``.
    """
    frame = sys._getframe(1)
    while frame is not None and is_guard(frame.f_code.co_filename):
        frame = frame.f_back
    inner = frame
    while frame is not None and _passes_on(frame):
        frame = frame.f_back
    if inner is None or frame is None:
        return ("unknown",)
    told = [_line(inner)] if frame is inner else [_line(inner), _line(frame)]
    return (f"{_short(frame)}:{frame.f_code.co_qualname}", *told)


def shape_of_call(name, args, kwargs):
    """Return (dtype, count, dict of op and root) of a call, for the comparison.

    Values that may differ between ranks or cannot be determined are None.
    """
    dtype = count = None
    if name[0].isupper():
        for arg in (*args, *kwargs.values()):
            bare = not isinstance(arg, (list, tuple))
            array = arg if bare else next(iter(arg), None)
            if hasattr(array, "dtype") and hasattr(array, "size"):
                dtype = str(array.dtype)
                count = int(array.size) if bare and name in EQUAL_COUNTS else None
                break
    named = {key: _text(kwargs[key]) for key in NAMED if key in kwargs}
    return dtype, count, named


def same(call, other):
    """Return whether two ranks make the same call from the same function."""
    return same_call(call, other) and call[5][0] == other[5][0]


def same_call(call, other):
    """Return whether two calls agree in number, name, dtype, count, op and root."""
    return call[:5] == other[:5]


def told(call):
    """Return a description of a call."""
    _, name, dtype, count, named, site = call
    details = [] if count is None else [f"{count} elements"]
    details += [] if dtype is None else [f"of {dtype}"]
    details += [f"{key} {value}" for key, value in named.items()]
    inside = f" ({', '.join(details)})" if details else ""
    return f"{name}{inside} at {', called from '.join(site[1:] or site)}"


def _passes_on(frame):
    """Return whether a frame belongs to ``comm`` or to ``contextlib``."""
    path = frame.f_code.co_filename
    return path.startswith(_COMM + os.sep) or os.path.basename(path) == "contextlib.py"


def _line(frame):
    return f"{_short(frame)}:{frame.f_lineno}"


def _short(frame):
    """Return the path of a frame's file, shortened if the file is in the package."""
    path = frame.f_code.co_filename
    if path.startswith(_PACKAGE + os.sep):
        return os.path.relpath(path, os.path.dirname(_PACKAGE))
    return path


def _text(value):
    """Return an argument as text that is the same on every rank."""
    from mpi4py import MPI

    if not isinstance(value, MPI.Op):
        return getattr(value, "__qualname__", None) or str(value)  # of a function
    names = ("SUM", "MAX", "MIN", "PROD", "LAND", "LOR", "BAND", "BOR", "LXOR", "BXOR")
    return next((n for n in names if value == getattr(MPI, n)), "of one's own")
