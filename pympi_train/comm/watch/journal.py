"""What each rank of a node is doing, in memory that all of them see."""

import contextlib
import os
from typing import NamedTuple

import numpy as np

# Where a rank is when it is in no collective; stored by index.
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
) = range(len(PLACES))

# Columns of a rank's row, int64 each.
WAITING = 0  # 0, or what the rank is in: see ``waiting``
PLACE = 1  # step << 8 | place
RANK = 2
PID = 3
BORN = 4  # when its process began, in the kernel's ticks: a pid may be used again
ALARM = 5  # 1: has waited too long, and is about to end the job
REPORTED = 6  # 1: has said so
STATE = 7  # HERE, or one of the others below
CHANNELS = 8  # two columns a channel: collectives begun, and the channel's name
N_CHANNELS = 28
WIDTH = CHANNELS + 2 * N_CHANNELS  # 512 bytes: no two ranks share a cache line

# Of a rank, by its STATE.
HERE = 0
ELSEWHERE = 1  # works in another job of the program
LEFT = 2  # its program has ended

_live: list = []  # the journals of this process


def waiting(number, operation, channel):
    """Return the word for being in an operation; different for each call.

    Parameters
    ----------
    number : int
        Of the call, counted on its channel.
    operation : int
        Index of its name in ``guard.OPERATIONS``; not 0.
    channel : int
        Of its communicator.
    """
    return number << 16 | operation << 8 | channel


def waited_in(word):
    """Return (number, operation, channel) of a word of `waiting`."""
    return word >> 16, word >> 8 & 255, word & 255


def place_and_step(word):
    """Return (name of the place, step) of a row's PLACE."""
    return PLACES[word & 255], word >> 8


class Operations(NamedTuple):
    """What a rank may wait in.

    Attributes
    ----------
    names : tuple of str
        The first is that of none.
    n_collectives : int
        The first so many are collectives of all members, each begun in its order.
    n_timed : int
        The first so many may take as long as the watchdog's timeout, the others any
        time.
    """

    names: tuple
    n_collectives: int
    n_timed: int


class Journal:
    """A table in shared memory, a row for each rank of the node.

    A rank writes into its own row by plain stores, which cost some ten nanoseconds;
    any rank of the node may read all rows at any time. A reader may see one column of
    a row newer than another: rows are for people and for timeouts of seconds.

    Communicators are told apart by channel: a small number that all members of one
    agree on when it is made, and its name, the first member's rank.

    Parameters
    ----------
    comm : MPI.Comm
        Its ranks are those that rows are about.

    Attributes
    ----------
    row : memoryview of int64, length WIDTH
        This rank's own.
    table : ndarray of int64, shape (ranks of the node, WIDTH)
    index : int
        Of this rank's row.
    rank, size : int
        Of ``comm``.
    used : int
        Bit i is set where channel i is in use on this rank.

    Notes
    -----
    Collective, and so is ``free``. A rank that stays away leaves the others waiting.
    """

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
        """Take a channel; ``name`` is the same on all members, > 0."""
        self.used |= 1 << channel
        self.row[CHANNELS + 2 * channel] = 0
        self.row[CHANNELS + 2 * channel + 1] = name

    def close_channel(self, channel):
        """Give a channel back."""
        self.used &= ~(1 << channel)
        self.row[CHANNELS + 2 * channel + 1] = 0

    def free(self):
        """Free the shared memory. Collective on the node."""
        if self._window:
            _live.remove(self)
            self.table = None
            self.row.release()  # a store into freed memory becomes an exception
            self._window.Free()
            self._node.Free()


def note_leaving():
    """Write into all journals of this process that its program has ended."""
    for journal in _live:
        journal.row[STATE] = LEFT


@contextlib.contextmanager
def at_work(comm):
    """Let other jobs' journals say in the body that this rank works elsewhere.

    Who waits for it in one of them waits for no hang: the job that it works in has a
    watchdog of its own.

    Parameters
    ----------
    comm : MPI.Comm
        Of the job that it works in, guarded or not.
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
            with contextlib.suppress(ValueError):  # freed meanwhile
                other[STATE] = state


def process(pid):
    """Return (state, start) of a process of this machine: ("", 0) if there is none.

    State is the kernel's letter ("T": stopped), start is in ticks since boot.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name may hold any
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", 0
