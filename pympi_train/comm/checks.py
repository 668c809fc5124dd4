"""Checks that all ranks make together, so that no rank is left waiting."""

import contextlib
import hashlib
import traceback

import numpy as np

from pympi_train import errors
from pympi_train.errors import RankMismatchError, RemoteRankError, UserError


def require_equal(comm, what, value, *, hint=""):
    """Raise on every rank if ``value`` differs between ranks.

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
    """Raise on every rank if one of ``values``, a dict by name, differs between ranks.

    As `require_equal`, with one message for all values. Collective.

    The ranks first compare a hash, in 32 bytes whatever their number; only if it
    differs, every rank receives the values of all.
    """
    if comm.size == 1 or _has_same_hash(comm, values):
        return
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


def _has_same_hash(comm, values):
    """Return whether the pickles of ``values`` agree, on every rank. Collective.

    Pickles of equal values may differ, for example if a text occurs twice in one.
    """
    from mpi4py import MPI

    digest = hashlib.blake2b(MPI.pickle.dumps(values), digest_size=16).digest()
    own = np.frombuffer(digest, np.int64)
    found = np.concatenate((own, ~own))  # the maximum of ~x is ~ of the minimum of x
    comm.Allreduce(MPI.IN_PLACE, found, op=MPI.MAX)
    return bool((found[:2] == ~found[2:]).all())


@contextlib.contextmanager
def together(comm):
    """Run rank-local work; if it raises on any rank, raise on all ranks.

    The body must make no MPI call, because a rank that raises would not make it.

    Raises
    ------
    UserError
        If the lowest rank that failed raised a UserError: the same class and message
        on all ranks.
    RemoteRankError
        On the other ranks, for any other exception. The failed rank raises its own
        exception.

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


class KeepsError:
    """Keeps the first error of this rank, until all ranks learn of it and raise."""

    _error = None

    def _attempt(self, function, *args):
        """Return ``function(*args)``; if it raises, keep the error and return None.

        After an error nothing is called.
        """
        if self._error is not None:
            return None
        try:
            return function(*args)
        except Exception as caught:
            self._error = caught
            return None


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
    """Return the exception that other ranks raise for an error of rank ``rank``.

    Parameters
    ----------
    kind : str
        Name of the error's class. A UserError keeps its class and message; any other
        error becomes a RemoteRankError.
    prefix, message : str
        The message of a RemoteRankError is ``prefix + message``.
    rank : int
    text : str
        The formatted traceback from rank ``rank``.
    """
    cls = getattr(errors, kind, None)
    if isinstance(cls, type) and issubclass(cls, UserError):
        return cls(message)
    remote = RemoteRankError(prefix + message, rank, text)
    # For an uncaught error, Python prints the note below this rank's traceback.
    remote.add_note(f"Traceback of rank {rank}:\n{text}")
    return remote


def on_root(comm, work):
    """Return rank 0's ``work()`` on every rank, or raise its error. Collective.

    Only one rank looks at the file system, because caches of network file systems may
    differ between nodes. The result is small: it is sent by pickling.
    """
    value = None
    with together(comm):
        if comm.rank == 0:
            value = work()
    return comm.bcast(value, root=0)


def members(comm):
    """Return the world ranks of the members of ``comm``, in the order of ``comm``."""
    from mpi4py import MPI

    group, world = comm.Get_group(), MPI.COMM_WORLD.Get_group()
    try:
        return tuple(MPI.Group.Translate_ranks(group, range(group.size), world))
    finally:
        group.Free()
        world.Free()


def agreed_within(comm, error):
    """Mark ``error`` as raised by all ranks of ``comm`` together; return it.

    A handler of a marked error may call collectives of these ranks, for example to
    free a communicator, because no other rank of the job is waiting elsewhere.
    """
    error.raised_by = frozenset(members(comm))
    return error


def is_agreed(error, comm):
    """Return whether all ranks of ``comm`` raised ``error`` together.

    Further ranks may have raised it too. Always True for a single rank.
    """
    if comm.size == 1:
        return True
    return getattr(error, "raised_by", frozenset()) >= frozenset(members(comm))
