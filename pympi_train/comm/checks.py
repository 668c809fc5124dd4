"""Checks that every rank makes together, so that none is left waiting."""

import contextlib
import traceback

import numpy as np

from pympi_train import errors
from pympi_train.errors import RankMismatchError, RemoteRankError, UserError


def require_equal(comm, what, value, *, hint=""):
    """Raise on every rank if ``value`` differs on any. Collective.

    Raises
    ------
    RankMismatchError
        On every rank, naming the first rank that differs from rank 0.

    Notes
    -----
    Collective.
    """
    require_all_equal(comm, {what: value}, hint=hint)


def require_all_equal(comm, values, *, hint=""):
    """Raise on every rank if one of ``values``, a dict by name, differs on any.

    As `require_equal`, in one message for all of them. Collective.
    """
    ranks = comm.allgather(values)
    for what, value in ranks[0].items():
        odd = [rank for rank, other in enumerate(ranks) if other[what] != value]
        if odd:
            text = (
                f"{what} differs between ranks: {value!r} on rank 0 but "
                f"{ranks[odd[0]][what]!r} on rank {odd[0]} ({len(odd)} of {comm.size} "
                f"ranks differ from rank 0). {hint}"
            )
            raise agreed_within(comm, RankMismatchError(text.rstrip()))


@contextlib.contextmanager
def together(comm):
    """Run rank-local work; if it raises on any rank, raise on all. Collective.

    The body must make no MPI call: a rank that raised would miss it.

    Raises
    ------
    UserError
        Of the same class and with the same message as on the lowest rank that
        failed, if it was one of this package's.
    RemoteRankError
        On the other ranks, for any other exception; the rank itself keeps its own.

    Notes
    -----
    Collective.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    raise_together(comm, error)


def raise_together(comm, error):
    """Raise on all ranks if ``error`` is not None on any. Collective."""
    from mpi4py import MPI

    first = np.array([comm.size if error is None else comm.rank], dtype=np.int64)
    comm.Allreduce(MPI.IN_PLACE, first, op=MPI.MIN)
    if first[0] < comm.size:
        _raise_from(comm, int(first[0]), error)


def _raise_from(comm, root, error):
    """Raise the error of rank ``root`` everywhere. Collective."""
    story = None
    if comm.rank == root:
        text = "".join(traceback.format_exception(error))
        story = (type(error).__name__, str(error), text)
    kind, message, text = comm.bcast(story, root=root)
    if comm.rank == root:
        raise agreed_within(comm, error)
    prefix = f"rank {root}: {kind}: "
    raise agreed_within(comm, retold(kind, prefix, message, root, text))


def retold(kind, prefix, message, rank, text):
    """Return an error of rank ``rank`` as another rank raises it.

    Parameters
    ----------
    kind : str
        Name of its class: a UserError stays what it is, with its message.
    prefix, message : str
        Of the RemoteRankError that any other one becomes.
    rank : int
    text : str
        Its traceback, formatted there.
    """
    cls = getattr(errors, kind, None)
    if isinstance(cls, type) and issubclass(cls, UserError):
        return cls(message)
    remote = RemoteRankError(prefix + message, rank, text)
    # Where nobody catches it, Python prints this below this rank's own traceback.
    remote.add_note(f"Traceback of rank {rank}:\n{text}")
    return remote


def members(comm):
    """Return the ranks of ``comm`` as ranks of the world, in its order."""
    from mpi4py import MPI

    group, world = comm.Get_group(), MPI.COMM_WORLD.Get_group()
    try:
        return tuple(MPI.Group.Translate_ranks(group, range(group.size), world))
    finally:
        group.Free()
        world.Free()


def agreed_within(comm, error):
    """Mark ``error`` as raised by all ranks of ``comm`` together.

    So whoever ends these ranks' work in good order, frees a communicator of theirs or
    ends their program, knows that no other rank of the job waits for this one.
    """
    error.raised_by = frozenset(members(comm))
    return error


def is_agreed(error, comm):
    """Return whether all ranks of ``comm`` raised ``error`` together.

    They may have raised it with more ranks. A single rank always has.
    """
    if comm.size == 1:
        return True
    return getattr(error, "raised_by", frozenset()) >= frozenset(members(comm))
