"""A table in shared memory of the activity of each rank of a node."""

import contextlib
import os
from typing import NamedTuple

import numpy as np

# Places of a rank that is in no collective; stored by index.
PLACES = (
    "set-up",
    "loading data",
    "input",
    "forward",
    "backward",
    "exchange",
    "update",
    "between steps",
    "evaluation",
    "end of epoch",
    "parked",
)
(
    SET_UP,
    LOADING,
    INPUT,
    FORWARD,
    BACKWARD,
    EXCHANGE,
    UPDATE,
    BETWEEN,
    EVALUATION,
    END_OF_EPOCH,
    PARKED,
) = range(len(PLACES))

# Columns of a rank's row, int64 each.
WAITING = 0  # 0, or the call that the rank is in: see ``waiting``
PLACE = 1  # step << 8 | place
RANK = 2
PID = 3
BORN = 4  # start of its process in kernel ticks, since a pid may be reused
ALARM = 5  # 1: has waited too long, and is about to end the job
REPORTED = 6  # 1: has printed the report
STATE = 7  # HERE, ELSEWHERE or LEFT, see below
CHANNELS = 8  # two columns per channel: collectives begun, name of the channel
N_CHANNELS = 28
WIDTH = CHANNELS + 2 * N_CHANNELS  # 512 bytes: no two ranks share a cache line

# Values of STATE.
HERE = 0
ELSEWHERE = 1  # works in another job of the program
LEFT = 2  # its program has ended

_live: list = []  # the journals of this process


def waiting(number, operation, channel):
    """Return the word that encodes a call; different for each call.

    Parameters
    ----------
    number : int
        Number of the call on its channel.
    operation : int
        Index of the operation in ``guard.OPERATIONS``; not 0.
    channel : int
        Channel of the communicator.
    """
    return number << 16 | operation << 8 | channel


def waited_in(word):
    """Return (number, operation, channel) of a word of `waiting`."""
    return word >> 16, word >> 8 & 255, word & 255


def place_and_step(word):
    """Return (name of the place, step) of a row's PLACE."""
    return PLACES[word & 255], word >> 8


class Operations(NamedTuple):
    """The operations that a rank may wait in.

    Attributes
    ----------
    names : tuple of str
        The first name means no operation.
    n_collectives : int
        Operations below this index are collectives, which all members begin in the same
        order.
    n_timed : int
        The watchdog's timeout applies to operations below this index. The others may
        take any time.
    """

    names: tuple
    n_collectives: int
    n_timed: int


class Journal:
    """A table in shared memory, with one row per rank of the node.

    A rank writes its own row by plain stores, which take about ten nanoseconds. Any
    rank of the node may read all rows at any time. A reader may see columns of a row
    from different times, which is sufficient for messages and for timeouts of seconds.

    A communicator is identified by its channel, a small number that its members agree
    on when it is created, and by its name, the rank of its first member.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks of the table.

    Attributes
    ----------
    row : memoryview of int64, length WIDTH
        This rank's row.
    table : ndarray of int64, shape (ranks of the node, WIDTH)
    index : int
        Index of this rank's row.
    rank, size : int
        Rank in ``comm``, and size of ``comm``.
    used : int
        Bit i is set if channel i is in use on this rank.
    may_be_given_up : bool
        Whether the program goes on if a rank of the job fails alone.
    append : callable or None
        Of the `Trace` that the waiting calls of this rank are recorded in.

    Notes
    -----
    Collective; ``free`` is too.
    """

    may_be_given_up = False
    append = None

    def __init__(self, comm):
        from mpi4py import MPI

        self.rank, self.size = comm.rank, comm.size
        self._node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        n, self.index = self._node.size, self._node.rank
        row_bytes = 8 * WIDTH
        all_bytes = n * row_bytes if self.index == 0 else 0
        try:
            self._window = MPI.Win.Allocate_shared(all_bytes, 8, comm=self._node)
        except MPI.Exception:  # no shared memory left, on all ranks of the node
            self._node.Free()
            raise
        memory = memoryview(self._window.Shared_query(0)[0])
        self.table = np.frombuffer(memory, np.int64, n * WIDTH).reshape(n, WIDTH)
        mine = slice(self.index * row_bytes, (self.index + 1) * row_bytes)
        self.row = memory.cast("B")[mine].cast("q")
        self.table[self.index] = 0
        self.row[RANK], self.row[PID] = self.rank, os.getpid()
        self.row[BORN] = process(os.getpid())[1]
        self.used = 0
        _live.append(self)
        self._node.Barrier()

    def open_channel(self, channel, name):
        """Mark a channel as used; ``name`` > 0 is the same on all members."""
        self.used |= 1 << channel
        self.row[CHANNELS + 2 * channel] = 0
        self.row[CHANNELS + 2 * channel + 1] = name

    def close_channel(self, channel):
        """Mark a channel as unused."""
        self.used &= ~(1 << channel)
        self.row[CHANNELS + 2 * channel + 1] = 0

    def free(self):
        """Free the shared memory. Collective on the node."""
        if self._window:
            _live.remove(self)
            self.table = None
            self.row.release()  # a later store raises, and does not write freed memory
            self._window.Free()
            self._node.Free()


def forget(journal):
    """Keep a journal no longer up to date; its memory stays. Not collective."""
    if journal in _live:
        _live.remove(journal)


def note_leaving():
    """Record in all journals of this process that its program has ended."""
    for journal in _live:
        journal.row[STATE] = LEFT


@contextlib.contextmanager
def at_work(comm):
    """Record in the journals of other jobs that this rank works elsewhere in the body.

    A wait for this rank in another job then does not count as a hang, because the job
    that it works in has its own watchdog.

    Parameters
    ----------
    comm : MPI.Comm
        Communicator of the job that the rank works in, guarded or not.
    """
    row = getattr(comm, "row", None)
    others = [journal.row for journal in _live if journal.row is not row]
    before = [other[STATE] for other in others]
    for other in others:
        other[STATE] = ELSEWHERE
    try:
        yield
    finally:
        for other, state in zip(others, before):
            with contextlib.suppress(ValueError):  # the journal was freed in the body
                other[STATE] = state


def process(pid):
    """Return (state, start) of a process of this machine, ("", 0) if there is none.

    The state is the kernel's letter ("T": stopped); the start is in ticks since boot.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # a name may contain ")"
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", 0
