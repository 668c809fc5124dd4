"""A thread on each rank that ends a job that waits for ever, and says for whom."""

import atexit
import os
import signal
import sys
import threading
import time
import traceback

import numpy as np

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.abort import SPEECH_S

TIMED_OUT = 124  # exit status, as timeout(1)'s
LEFT_S = 2.0  # that a rank waits for one whose program has ended
MOST_FRAMES = 20  # the innermost ones
MOST_NAMED = 8  # laggards that are named and print where they are

_GUARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")

STOPPED = ("T", "t", "Z")
STATES = {
    "R": "its process runs",
    "S": "its process sleeps",
    "D": "its process waits for a disk or a file server",
    "T": "its process is stopped",
    "t": "its process is stopped by a debugger",
    "Z": "its process has ended",
    "": "its process is gone",
}


class Ages:
    """How long each rank of a node has been where it is.

    Time is what passed between two looks, and no more than a look may take: while a
    whole job is suspended nobody looks, and the hours do not count.

    Attributes
    ----------
    waited_s : ndarray, shape (ranks of the node,)
        Seconds in the same call; 0 for a rank that is in none.
    there_s : ndarray, shape (ranks of the node,)
        Seconds since a rank was last seen to begin or end anything.
    """

    def __init__(self, table):
        self._last = table[:, : j.PLACE + 1].copy()
        self.waited_s = np.zeros(len(table))
        self.there_s = np.zeros(len(table))

    def look(self, table, elapsed_s):
        """Take a copy of the journal's table, ``elapsed_s`` after the last one."""
        now = table[:, : j.PLACE + 1].copy()
        same = now == self._last
        waits = same[:, j.WAITING] & (now[:, j.WAITING] != 0)
        self.waited_s = np.where(waits, self.waited_s + elapsed_s, 0.0)
        self.there_s = np.where(same.all(axis=1), self.there_s + elapsed_s, 0.0)
        self._last = now


def laggards(table, waiter):
    """Return the rows of ranks that row ``waiter`` is waiting for, as far as known.

    Ranks of the same communicator that have begun fewer collectives on it. Where
    there is none, ranks of it that are in no call at all: they may have left the
    collective before it was done, or have to take part in one that was only started.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int

    Returns
    -------
    list of int
        Empty if all are there: who is missing is on another node.
    """
    channel = j.waited_in(int(table[waiter, j.WAITING]))[2]
    at = j.CHANNELS + 2 * channel
    begun, names = table[:, at], table[:, at + 1]
    members = names == names[waiter]
    late = members & (begun < begun[waiter])
    if not late.any():
        late = members & (table[:, j.WAITING] == 0)
        late[waiter] = False
    return np.flatnonzero(late).tolist()


def left(table, waiter, n_collectives):
    """Return the rows of ranks that row ``waiter`` waits for in vain: they have left.

    Parameters
    ----------
    table : ndarray of int64, shape (ranks of the node, journal.WIDTH)
    waiter : int
    n_collectives : int
        The first so many operations are collectives: who has begun one may leave after
        it. In the others, requests and messages, each member may be needed.

    Returns
    -------
    list of int
    """
    _, operation, channel = j.waited_in(int(table[waiter, j.WAITING]))
    at = j.CHANNELS + 2 * channel
    needed = table[:, at + 1] == table[waiter, at + 1]
    if operation < n_collectives:
        needed &= table[:, at] < table[waiter, at]
    needed[waiter] = False
    return [i for i in np.flatnonzero(needed).tolist() if _has_left(table[i])]


def _has_left(row):
    born = j.process(int(row[j.PID]))[1]
    return row[j.STATE] == j.LEFT or born != row[j.BORN]


def are_elsewhere(table, waiter):
    """Whether those that row ``waiter`` is waiting for all work in other jobs."""
    late = laggards(table, waiter)
    return bool(late) and bool((table[late, j.STATE] == j.ELSEWHERE).all())


def missing(table, waiter):
    """Return `laggards`, or where there are none the ranks whose process is stopped.

    A server that is stopped while it waits for a worker is late for no collective.
    """
    late = laggards(table, waiter)
    if late:
        return late
    states = {i: j.process(int(pid))[0] for i, pid in enumerate(table[:, j.PID])}
    return [i for i, state in states.items() if i != waiter and state in STOPPED]


class Watchdog:
    """Looks at the journal; ends the job when this rank has waited too long.

    The thread makes no MPI call. It only ever acts on the rank's being *in* a call,
    so a rank that computes for long is never ended by itself, but by those that wait
    for it.

    Parameters
    ----------
    journal : Journal
    operations : Operations
        What a rank may wait in.
    timeout_s : float
        Seconds in one call, > 0; infinite: for ever, but not for a rank that has left.
    end : callable, optional
        ``end(pids)``, to end this process and those of ``pids``; for tests.
    """

    def __init__(self, journal, operations, timeout_s, end=None):
        self._journal, self._operations = journal, operations
        self._timeout_s = timeout_s
        self._interval_s = min(timeout_s / 10, 1.0)
        self._end_process = end or end_job
        self._watched = threading.get_ident()
        self._ages = Ages(journal.table)
        self._told = False  # this rank's stack
        self._looks = 0  # since this rank's alarm
        self._in_vain_s = 0.0  # that this rank has waited for one that has left
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="pympi_train watchdog", daemon=True
        )

    def start(self):
        """Start to watch."""
        atexit.register(self.stop)  # before MPI takes the journal's memory back
        self._thread.start()

    def stop(self):
        """Stop to watch; the journal may be freed afterwards."""
        atexit.unregister(self.stop)
        self._stopped.set()
        self._thread.join()

    def _run(self):
        last_s = time.monotonic()
        while not self._stopped.wait(self._interval_s):
            now_s = time.monotonic()
            self.look(min(now_s - last_s, 2 * self._interval_s))
            last_s = now_s

    def look(self, elapsed_s):
        """Look once, ``elapsed_s`` after the last time; act where it is time to."""
        table, own = self._journal.table.copy(), self._journal.index
        self._ages.look(table, elapsed_s)
        if self._waits_in_vain(table, own, elapsed_s):
            self._tell_and_end(table, left(table, own, self._operations.n_collectives))
            return
        if table[own, j.WAITING] and are_elsewhere(table, own):
            self._ages.waited_s[own] = 0.0
        alarms = np.flatnonzero(table[:, j.ALARM])
        if not len(alarms):
            self._told = False
        elif not self._told:
            named = missing(table, int(alarms[0]))[:MOST_NAMED]
            if own == alarms[0] or own in named:
                self._told = True
                self._say(self._stack())
        if not self._is_timed(table[own]) or self._ages.waited_s[own] < self._timeout_s:
            if table[own, j.ALARM]:  # who was missing came in the last moment
                self._journal.row[j.ALARM] = self._looks = 0
            return
        self._journal.row[j.ALARM] = 1
        self._looks += 1
        # Two looks are what the others need to see the alarm and print their stacks.
        if self._looks == 4 and own == alarms[0]:
            self._report_and_end(table)
        elif self._looks >= 8:  # the lowest alarmed rank may be stopped since
            self._report_and_end(table)

    def _is_timed(self, row):
        return j.waited_in(int(row[j.WAITING]))[1] < self._operations.n_timed

    def _waits_in_vain(self, table, own, elapsed_s):
        """Whether this rank has waited for one that has left, for LEFT_S."""
        if not table[own, j.WAITING] or self._ages.waited_s[own] == 0.0:
            self._in_vain_s = 0.0
        elif left(table, own, self._operations.n_collectives):
            self._in_vain_s += elapsed_s
        return self._in_vain_s >= LEFT_S

    def _report_and_end(self, table):
        self._tell_and_end(table, missing(table, self._journal.index))

    def _tell_and_end(self, table, late):
        if not table[:, j.REPORTED].any():
            self._journal.row[j.REPORTED] = 1
            self._say(self._report(table, late))
            time.sleep(SPEECH_S)
        self._end_process([(int(table[i, j.PID]), int(table[i, j.BORN])) for i in late])

    def _report(self, table, late):
        size = self._journal.size
        own = self._journal.index
        number, operation, _ = j.waited_in(int(table[own, j.WAITING]))
        why = f"[parallel] timeout_s = {self._timeout_s:g}"
        if late and _has_left(table[late[0]]):
            why = "for a rank whose program has ended"
        lines = [
            f"rank {self._journal.rank} of {size} has waited "
            f"{self._ages.waited_s[own]:.3g} s in {self._operations.names[operation]} "
            f"(call {number} of its communicator; {why}): ending the job"
        ]
        if late:
            lines.append("Not there, of the ranks of this node:")
            lines += [self._line(table, i) for i in late[:MOST_NAMED]]
            if len(late) > MOST_NAMED:
                lines.append(f"  and {len(late) - MOST_NAMED} more")
        else:
            lines.append(
                "All ranks of this node are there: who is missing runs on another "
                "node. Look for another report, or for a node without any."
            )
        return "\n".join(lines) + "\n"

    def _line(self, table, i):
        row = table[i]
        place, step = j.place_and_step(int(row[j.PLACE]))
        where = f"{place}, step {step}" if step else place
        if row[j.WAITING]:
            _, operation, _ = j.waited_in(int(row[j.WAITING]))
            where += f", in {self._operations.names[operation]}"
        state = STATES.get(j.process(int(row[j.PID]))[0], "")
        if row[j.STATE] == j.LEFT:
            state = "its program has ended"
        elif _has_left(row):
            state = STATES[""]
        return (
            f"  rank {row[j.RANK]}: {where}, for {self._ages.there_s[i]:.3g} s"
            f"{'; ' + state if state else ''} (process {row[j.PID]})"
        )

    def _stack(self):
        """Where the watched thread is, as text."""
        frame = sys._current_frames().get(self._watched)
        stack = [] if frame is None else traceback.extract_stack(frame)
        while stack and stack[-1].filename == _GUARD:
            stack.pop()
        head = f"rank {self._journal.rank} of {self._journal.size} is here"
        lines = traceback.format_list(stack[-MOST_FRAMES:])
        return f"{head} (most recent call last):\n{''.join(lines)}"

    def _say(self, text):
        sys.stderr.write(text)  # one write: lines of several ranks stay together
        sys.stderr.flush()


def end_job(processes):
    """End ``processes``, [(pid, start), ...], and this one, without any clean-up.

    A launcher ends the job when one process ends with an error status, with SIGKILL
    also for stopped ones (MPICH's hydra and Open MPI's prterun do); ``srun`` may be
    set to let the others go on, so those who hold up the job are ended from here.
    """
    for pid, born in processes:
        if born and j.process(pid)[1] == born:  # still the process that wrote it
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
    os._exit(TIMED_OUT)
