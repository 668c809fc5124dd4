"""The last spans of a rank, in memory that does not grow."""

import contextlib
from collections import deque
from time import perf_counter

import numpy as np

from pympi_train.trace.events import END, KINDS, spans_and_flights

SPAN = np.dtype(
    [
        ("kind", np.uint8),
        ("name", "U24"),
        ("step", np.int64),
        ("start_s", np.float64),
        ("end_s", np.float64),
    ]
)
FLIGHT = np.dtype(
    [
        ("bucket", np.int64),
        ("step", np.int64),
        ("start_s", np.float64),
        ("end_s", np.float64),
    ]
)
COLLECTIVE, WAIT = KINDS.index("collective"), KINDS.index("wait")
UNUSED = 0.0  # fills the ring at first; the times of events are later


class Trace:
    """Records what this rank does, in a ring: the newest events replace the oldest.

    An event is a code and a time: the end of a lap, the beginning of backward, of a
    step or of a call that waits, and its end. `spans` makes spans of them afterwards.

    Parameters
    ----------
    n_spans : int
        Maximum number of spans that are kept.

    Attributes
    ----------
    append : callable
        Appends to the ring: the code of an event (see ``events``), then its time by
        ``time.perf_counter`` as a float.
    KINDS : tuple of str
        The kinds of spans.

    Notes
    -----
    An event takes two appends to a deque of fixed length, which is faster than stores
    to arrays and needs no index: 20 ns beside the 40 ns of reading the clock (Python
    3.11). The ring has 16 bytes for an event from the start, and at most 24 for its
    time.
    """

    KINDS = KINDS

    def __init__(self, n_spans):
        if n_spans < 1:
            raise ValueError(f"n_spans: expected at least 1, got {n_spans}")
        self.n_spans = n_spans
        # Laps that surround a span may need an event more than there are spans.
        self._events = deque([UNUSED] * (2 * n_spans + 2), 2 * n_spans + 2)
        self.append = self._events.append

    @property
    def is_overwritten(self):
        """Whether the oldest events were replaced by newer ones."""
        return self._events[0] is not UNUSED

    def items(self):
        """Return the ring itself: codes and times in turn, oldest first."""
        return self._events

    @contextlib.contextmanager
    def span(self, name):
        """Record the body as one span of kind ``name``, less the calls in it.

        Parameters
        ----------
        name : {"evaluation", "checkpoint"}
        """
        self.append(name)
        self.append(perf_counter())
        try:
            yield
        finally:
            self.append(END)
            self.append(perf_counter())

    def spans(self):
        """Return the spans that are kept, in the order of time.

        Returns
        -------
        ndarray of SPAN
            ``kind`` is an index of ``KINDS``; ``name`` the kind's or the call's, such
            as "Allreduce"; ``step`` counts from 1, as for the watchdog; ``start_s`` and
            ``end_s`` are by ``time.perf_counter``. Spans do not overlap.
        """
        return self.read()[0]

    def flights(self):
        """Return the sums of buckets that were in flight during backward.

        Returns
        -------
        ndarray of FLIGHT
            ``bucket`` counts from 0, in the order in which they are sent; the other
            fields are those of `spans`. ``end_s`` is when this rank has seen that the
            sum is complete: at the next border of layers, or in the wait at the end.
            In the order of ends. Flights overlap.
        """
        return self.read()[1]

    def read(self):
        """Return `spans` and `flights`, from one reading of the ring."""
        spans, flights = spans_and_flights(self._events)
        found = np.array(spans, SPAN)
        found = _joined(found[np.argsort(found["start_s"], kind="stable")])
        return found, np.array(flights, FLIGHT)


def _joined(spans):
    """Return ordered spans, with those of one phase joined if nothing parts them."""
    before, after = spans[:-1], spans[1:]
    is_same = (before["name"] == after["name"]) & (before["step"] == after["step"])
    is_same &= (before["end_s"] == after["start_s"]) & (after["kind"] != WAIT)
    is_same &= after["kind"] != COLLECTIVE
    starts = np.flatnonzero(np.r_[True, ~is_same][: len(spans)])
    found = spans[starts]
    found["end_s"] = np.r_[before["end_s"][~is_same], spans["end_s"][-1:]]
    return found
