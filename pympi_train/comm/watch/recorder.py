"""Records steps in a Trace: all of them, or as many as may cost a share of the time."""

import contextlib
from time import perf_counter

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.guard import marker
from pympi_train.trace.events import count_events, done_code
from pympi_train.trace.laps import BREAK

EVENT_S = 250e-9  # of an event of a step; measured by scripts/bench/trace_cost.py
CALIBRATION = 32  # steps of which the shortest tells how many are recorded
AIM = 0.1  # of the allowed share: a switch and the steps between cost something too
# Steps are chosen by the fractional part of their number times the golden ratio, in
# units of 1 / (WORD + 1): whatever has a period, as the exchanges of strategy local,
# falls into as many of them as of all steps.
GOLDEN, WORD = 0x9E3779B9, 0xFFFFFFFF
MOST_EVERY = 2**14  # far more than any step needs; `next_chosen` is right up to here


class Recorder:
    """Records the laps, places and waiting calls of this rank in a Trace.

    Parameters
    ----------
    comm : MPI.Comm
        All ranks of the job. The calls of all communicators made from it are recorded.
        If it is not guarded, this rank is alone, and waits for nobody.
    laps : Laps
    trace : Trace
    max_share : float, optional
        Of a step's time. If recording each step takes more, one of 2, 4, 8 ... steps is
        recorded. By default, each is.

    Attributes
    ----------
    trace : Trace
    mark : callable
        Replaces that of `guard.marker`.
    is_on : bool
        Whether the current step is recorded.
    every : int
        One of so many steps is recorded. A power of two, so that ranks with different
        numbers still have steps in common.
    next : int
        The next step that is recorded. Until it, `end_step` need not be called.

    Notes
    -----
    Not collective. The ranks need not agree.
    """

    def __init__(self, comm, laps, trace, max_share=None):
        self.trace, self.next = trace, 0
        self._choose(1)
        self._laps, self._journal = laps, getattr(comm, "_journal", None)
        self._share, self._shortest_s, self._n_events = max_share, float("inf"), 0
        self._n_left = CALIBRATION if max_share else 0
        self._began_s = None
        self._marks = {False: marker(comm), True: _traced(marker(comm), trace.append)}
        self._switch(True)

    def stop(self):
        """Record no longer."""
        self._switch(False)

    def _choose(self, every):
        """Let one of ``every`` steps be recorded from the next one on."""
        self.every, self._limit = every, (WORD + 1) // every

    def _switch(self, on):
        """Begin or end to record laps and calls."""
        self.is_on, self.mark = on, self._marks[on]
        self._laps.append = append = self.trace.append if on else None
        if self._journal is not None:
            self._journal.append = append

    def end_step(self, step):
        """Note that ``step`` is done; return whether ``mark`` has changed."""
        if self.is_on:
            append = self.trace.append
            append(step << 1 | 1)  # inlined `done_code`
            append(0.0)
            if self._n_left:
                self._calibrate()
        if step + 1 != self.next:
            self.next = next_chosen(step, self._limit)
        is_next = step + 1 == self.next
        if is_next is self.is_on:
            return False
        if is_next:
            self._begin(step)
        self._switch(is_next)
        return True

    @contextlib.contextmanager
    def span(self, name, step):
        """Record the body, after ``step``, whether it is recorded; see `Trace.span`."""
        was_on, self._began_s = self.is_on, None  # this step is no measure of others
        if not was_on:
            self._begin(step)
            self._switch(True)
        try:
            with self.trace.span(name):
                yield
        finally:
            if not was_on:
                self._switch(False)

    def _begin(self, step):
        """Note that what follows is not known to continue what was recorded before."""
        append = self.trace.append
        append(done_code(step))
        append(0.0)
        append(BREAK)
        append(perf_counter())

    def _calibrate(self):
        """Measure a step that has just ended; choose ``every``."""
        now_s, began_s = perf_counter(), self._began_s
        self._began_s = now_s
        if began_s is None:
            return
        self._n_left -= 1
        self._shortest_s = min(self._shortest_s, now_s - began_s)
        self._n_events = max(self._n_events, count_events(self.trace.items()))
        if self._n_left == 0:
            cost_s = self._n_events * EVENT_S
            share_s = AIM * self._share * self._shortest_s
            self._choose(min(power_above(cost_s / share_s), MOST_EVERY))
            self.next = 0  # another one now


def power_above(number):
    """Return the least power of two that is at least ``number``."""
    found = 1
    while found < number:
        found *= 2
    return found


def next_chosen(step, limit):
    """Return the first step after ``step`` with ``step * GOLDEN & WORD < limit``.

    ``limit`` is (WORD + 1) / MOST_EVERY or more. The distance from one such step to the
    next is a Fibonacci number: for any ratio there are at most three distances [1]_,
    and for the golden one these are such numbers.

    References
    ----------
    .. [1] N. B. Slater, "Gaps and steps for the sequence n theta mod 1", Mathematical
       Proceedings of the Cambridge Philosophical Society 63 (1967).
    """
    at, before, gap = step * GOLDEN, 1, 1
    is_chosen = at & WORD < limit
    while (at + gap * GOLDEN) & WORD >= limit:
        before, gap = (gap, before + gap) if is_chosen else (1, gap + 1)
    return step + gap


def _traced(plain, append):
    """Return `guard.marker`'s function, which then records where backward begins."""
    backward = j.BACKWARD

    def mark(place, step=0):
        plain(place, step)
        if place == backward:
            append(step << 1)  # inlined `backward_code`
            append(perf_counter())

    return mark
