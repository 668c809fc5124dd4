"""A thread on each rank that ends a hanging job and reports the missing ranks."""

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
from pympi_train.comm.watch.sites import is_guard
from pympi_train.comm.watch.waiting import (
    Ages,
    are_elsewhere,
    astray,
    has_left,
    left,
    missing,
    none_moves,
)

TIMED_OUT = 124  # exit status, as of timeout(1)
ABORT_S = 3.0  # maximum time that MPI_Abort takes
LEFT_S = 2.0  # time that a rank waits for a rank whose program has ended
MOST_FRAMES = 20  # innermost frames of a printed stack
MOST_NAMED = 8  # late ranks that are named and print their stack

STATES = {
    "R": "its process runs",
    "S": "its process sleeps",
    "D": "its process waits for a disk or a file server",
    "T": "its process is stopped",
    "t": "its process is stopped by a debugger",
    "Z": "its process has ended",
    "": "its process is gone",
}


class Watchdog:
    """A thread that reads the journal, and ends the job if this rank waits too long.

    The thread makes no MPI call but the one that ends the job. It acts only while this
    rank is *in* a call. A long computation is therefore ended by the ranks that wait
    for it, not by its own rank.

    Parameters
    ----------
    journal : Journal
    operations : Operations
        The operations that a rank may wait in.
    timeout_s : float
        Maximum seconds in one call, > 0. If infinite, only waits for an ended rank end
        the job.
    end : callable, optional
        ``end(processes)``, to be called instead of `end_job`. If it returns True, this
        rank is given up, and the thread ends.
    """

    def __init__(self, journal, operations, timeout_s, end=None):
        self._journal, self._operations = journal, operations
        self._timeout_s = timeout_s
        self._interval_s = min(timeout_s / 10, 1.0)
        self._end_process = end or end_job
        self._ended, self._left_s = "the job", LEFT_S
        if end is end_late:  # MPI reports a rank that has ended, if perhaps later
            self._ended, self._left_s = "what is late", 5 * LEFT_S
        self._watched = threading.get_ident()
        self._ages = Ages(journal.table)
        self._told = False  # whether this rank's stack was printed
        self._looks = 0  # number of looks since this rank's alarm
        self._in_vain_s = 0.0  # time that this rank has waited for an ended rank
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="pympi_train watchdog", daemon=True
        )

    def start(self):
        """Start the thread."""
        atexit.register(self.stop)  # before MPI frees the journal's memory
        self._thread.start()

    def stop(self):
        """Stop the thread; the journal may be freed afterwards."""
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
        """Check the journal once, ``elapsed_s`` after the last check, and act on it."""
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
            first = int(alarms[0])
            named = (missing(table, first) or self._others(table, first))[:MOST_NAMED]
            if own == alarms[0] or own in named:
                self._told = True
                self._say(self._stack())
        if not self._is_overdue(table, own):
            if table[own, j.ALARM]:  # the missing rank has arrived in time
                self._journal.row[j.ALARM] = self._looks = 0
            return
        self._journal.row[j.ALARM] = 1
        self._looks += 1
        # The other ranks need two looks to see the alarm and print their stacks.
        if self._looks == 4 and own == alarms[0]:
            self._report_and_end(table)
        elif self._looks >= 8:  # the lowest alarmed rank may have been stopped
            self._report_and_end(table)

    def _others(self, table, waiter):
        """Return the rows to show if no rank is late.

        On a node that has all ranks, one of them must be in a wrong call.
        """
        others = astray(table, waiter)
        if not others and len(table) == self._journal.size:
            others = [i for i in range(len(table)) if i != waiter]
        return others

    def _is_overdue(self, table, own):
        """Return whether this rank waits for longer than it should.

        A server may wait for a request as long as another rank does something.
        """
        n_timed, limit_s = self._operations.n_timed, self._timeout_s
        if self._ages.waited_s[own] < limit_s:
            return False
        if j.waited_in(int(table[own, j.WAITING]))[1] < n_timed:
            return True
        if len(table) < self._journal.size:
            return False  # those of other nodes are not seen
        there_s = np.delete(self._ages.there_s, own)
        return bool((there_s >= limit_s).all()) and none_moves(table, own, n_timed)

    def _waits_in_vain(self, table, own, elapsed_s):
        """Return whether this rank has waited LEFT_S for a rank that has ended."""
        if not table[own, j.WAITING] or self._ages.waited_s[own] == 0.0:
            self._in_vain_s = 0.0
        elif left(table, own, self._operations.n_collectives):
            self._in_vain_s += elapsed_s
        return self._in_vain_s >= self._left_s

    def _report_and_end(self, table):
        self._tell_and_end(table, missing(table, self._journal.index))

    def _tell_and_end(self, table, late):
        if not table[:, j.REPORTED].any():
            self._journal.row[j.REPORTED] = 1
            self._say(self._report(table, late))
            time.sleep(SPEECH_S)
        processes = [(int(table[i, j.PID]), int(table[i, j.BORN])) for i in late]
        if self._end_process(processes):
            self._stopped.set()

    def _report(self, table, late):
        size = self._journal.size
        own = self._journal.index
        number, operation, _ = j.waited_in(int(table[own, j.WAITING]))
        why = f"[parallel] timeout_s = {self._timeout_s:g}"
        if late and has_left(table[late[0]]):
            why = "for a rank whose program has ended"
        lines = [
            f"rank {self._journal.rank} of {size} has waited "
            f"{self._ages.waited_s[own]:.3g} s in {self._operations.names[operation]} "
            f"(call {number} of its communicator; {why}): ending {self._ended}"
        ]
        others = [] if late else self._others(table, own)
        if late:
            lines.append("Not there, of the ranks of this node:")
            lines += self._lines(table, late)
        elif others:
            lines.append("No rank is late. Others wait too, in other calls:")
            lines += self._lines(table, others)
            lines.append(
                "A collective call inside `if rank == 0` does this. [parallel] debug = "
                "true names the calls that differ."
            )
        else:
            lines.append(
                "All ranks of this node are there: who is missing runs on another "
                "node. Look for another report, or for a node without any."
            )
        return "\n".join(lines) + "\n"

    def _lines(self, table, rows):
        lines = [self._line(table, i) for i in rows[:MOST_NAMED]]
        n_more = len(rows) - len(lines)
        return lines + ([f"  and {n_more} more"] if n_more else [])

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
        elif has_left(row):
            state = STATES[""]
        return (
            f"  rank {row[j.RANK]}: {where}, for {self._ages.there_s[i]:.3g} s"
            f"{'; ' + state if state else ''} (process {row[j.PID]})"
        )

    def _stack(self):
        """Return the stack of the watched thread as text."""
        frame = sys._current_frames().get(self._watched)
        stack = [] if frame is None else traceback.extract_stack(frame)
        while stack and is_guard(stack[-1].filename):
            stack.pop()
        head = f"rank {self._journal.rank} of {self._journal.size} is here"
        lines = traceback.format_list(stack[-MOST_FRAMES:])
        return f"{head} (most recent call last):\n{''.join(lines)}"

    def _say(self, text):
        sys.stderr.write(text)  # one write keeps the lines of a rank together
        sys.stderr.flush()


def end_job(processes):
    """End ``processes``, [(pid, start), ...], and the job, without any clean-up.

    The late processes are ended here, as a launcher may leave stopped ones. A rank that
    just ends with an error status does not end those of other nodes: MPICH's hydra
    5.0.2 waits for them, and ``srun`` may be configured to. MPI_Abort does. Should the
    MPI library not let this thread in, the launcher notices that a signal has ended
    this rank.
    """
    _kill(processes)
    threading.Thread(target=_abort, daemon=True).start()
    time.sleep(ABORT_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _abort():
    from mpi4py import MPI

    if MPI.Query_thread() == MPI.THREAD_MULTIPLE:
        MPI.COMM_WORLD.Abort(TIMED_OUT)


def end_late(processes):
    """End ``processes``, [(pid, start), ...]; if none of them runs, `end_job`.

    For ranks that outlive others: MPI reports the end of the late ranks.
    """
    if not _kill(processes):
        os._exit(TIMED_OUT)


def _kill(processes):
    """Return whether any of them was still running."""
    found = False
    for pid, born in processes:
        if born and j.process(pid)[1] == born:  # still the process that wrote it
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            found = True
    return found
