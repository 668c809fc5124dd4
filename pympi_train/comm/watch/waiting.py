"""Who waits for whom on a node, and for how long: the journal's table, read."""

import numpy as np

from pympi_train.comm.watch import journal as j

# Places that a rank leaves in each step, and after a callback.
IN_STEP = j.INPUT, j.FORWARD, j.BACKWARD, j.EXCHANGE, j.UPDATE
BRIEF = *IN_STEP, j.BETWEEN, j.END_OF_EPOCH
STOPPED = ("T", "t", "Z")  # states of a process that does not go on by itself


class Ages:
    """Time that each rank of a node has spent at its current place.

    Only the time between two looks counts, up to a limit per look. Time during which
    the whole job is suspended therefore does not count.

    Attributes
    ----------
    waited_s : ndarray, shape (ranks of the node,)
        Seconds in the current call; 0 for a rank that is in no call.
    there_s : ndarray, shape (ranks of the node,)
        Seconds since the last observed change of a rank's call or place.
    """

    def __init__(self, table):
        self._last = table[:, : j.PLACE + 1].copy()
        self.waited_s = np.zeros(len(table))
        self.there_s = np.zeros(len(table))

    def look(self, table, elapsed_s):
        """Compare the journal's table with the copy taken ``elapsed_s`` before."""
        now = table[:, : j.PLACE + 1].copy()
        same = now == self._last
        waits = same[:, j.WAITING] & (now[:, j.WAITING] != 0)
        self.waited_s = np.where(waits, self.waited_s + elapsed_s, 0.0)
        self.there_s = np.where(same.all(axis=1), self.there_s + elapsed_s, 0.0)
        self._last = now


def _waited_in(table, waiter):
    """Return what row ``waiter`` waits in: operation, channel, members and counts.

    Members is a mask of the rows in the same communicator; counts are the collectives
    that each row has begun on the channel.
    """
    _, operation, channel = j.waited_in(int(table[waiter, j.WAITING]))
    at = j.CHANNELS + 2 * channel
    members = table[:, at + 1] == table[waiter, at + 1]
    return operation, channel, members, table[:, at]


def laggards(table, waiter):
    """Return the rows of the known ranks that row ``waiter`` is waiting for.

    These are the ranks of the same communicator that have begun fewer collectives on
    it. If there are none, they are its ranks that are in no call: these may have left
    the collective early, or may have to complete a collective that was only started.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int

    Returns
    -------
    list of int
        Empty if no rank of this node is late; the late rank is on another node.
    """
    _, _, members, begun = _waited_in(table, waiter)
    late = members & (begun < begun[waiter])
    if not late.any():
        late = members & (table[:, j.WAITING] == 0)
        late[waiter] = False
    return np.flatnonzero(late).tolist()


def left(table, waiter, n_collectives):
    """Return the rows of the ended ranks that row ``waiter`` is waiting for.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int
    n_collectives : int
        The operations below this index are collectives: a rank that has begun one may
        end after it. For requests and messages, every member may be needed.

    Returns
    -------
    list of int
    """
    operation, _, needed, begun = _waited_in(table, waiter)
    if operation < n_collectives:
        needed &= begun < begun[waiter]
    needed[waiter] = False
    return [i for i in np.flatnonzero(needed).tolist() if has_left(table[i])]


def has_left(row):
    """Return whether the program of a rank, a row of the table, has ended."""
    born = j.process(int(row[j.PID]))[1]
    return row[j.STATE] == j.LEFT or born != row[j.BORN]


def are_elsewhere(table, waiter):
    """Return whether all ranks that row ``waiter`` waits for work in other jobs."""
    late = laggards(table, waiter)
    return bool(late) and bool((table[late, j.STATE] == j.ELSEWHERE).all())


def missing(table, waiter):
    """Return `laggards`, or if there are none, the ranks whose process is stopped.

    A server that is stopped while it waits for a worker is not late in a collective.
    """
    late = laggards(table, waiter)
    if late:
        return late
    states = {i: j.process(int(pid))[0] for i, pid in enumerate(table[:, j.PID])}
    return [i for i, state in states.items() if i != waiter and state in STOPPED]


def none_moves(table, waiter, n_timed):
    """Return whether none of the other ranks seems to do anything.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int
    n_timed : int
        As of `Operations`.

    Notes
    -----
    For ranks that have not changed their place for the timeout. Unless it is stopped,
    a rank may well do something in another job, or at a place such as an evaluation,
    which takes as long as it takes. A rank in a call with a timeout is left to its own
    watchdog.
    """
    for i in range(len(table)):
        if i == waiter or j.process(int(table[i, j.PID]))[0] in STOPPED:
            continue
        word, place = int(table[i, j.WAITING]), int(table[i, j.PLACE]) & 255
        is_timed = word != 0 and j.waited_in(word)[1] < n_timed
        is_busy = word == 0 and place not in BRIEF
        if is_timed or is_busy or table[i, j.STATE] == j.ELSEWHERE:
            return False
    return True


def astray(table, waiter):
    """Return the rows of ranks that wait in another operation than row ``waiter``.

    They have begun as many collectives of the same communicator, so that none is late;
    but one of them is not the call that the others make.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int

    Returns
    -------
    list of int
    """
    operation, channel, members, _ = _waited_in(table, waiter)
    found = []
    for i in np.flatnonzero(members & (table[:, j.WAITING] != 0)).tolist():
        _, other, where = j.waited_in(int(table[i, j.WAITING]))
        if where == channel and other != operation:
            found.append(i)
    return found
