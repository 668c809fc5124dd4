"""Spans from the events of a rank."""

from pympi_train.trace.laps import BREAK, PHASES

KINDS = (
    "input",
    "forward",
    "backward",
    "pack",
    "collective",
    "wait",
    "update",
    "checkpoint",
    "evaluation",
)
END = ""  # of the span that began last and has not ended
# Calls that wait for requests, and for one rank; other calls are collectives.
FOR_REQUESTS = ("Wait", "Waitall", "Waitsome")
PAIRWISE = (
    "Send Ssend Recv Sendrecv Sendrecv_replace Probe Mprobe "
    "send ssend recv sendrecv probe mprobe"
).split()
WAITS = frozenset((*FOR_REQUESTS, *PAIRWISE))
PARTS = ("checkpoint", "evaluation")  # what has calls in it that are spans too


def backward_code(step):
    """Return the code of an event: backward of ``step`` begins."""
    return 2 * step


def done_code(step):
    """Return the code of an event: ``step`` is done. Its time is not used."""
    return 2 * step + 1


def bucket_codes(index):
    """Return the codes of two events: the sum of a bucket begins, and is seen to end.

    They are no part of spans: the sums of buckets overlap them, and each other.
    """
    return (index, False), (index, True)


def pairs_of(events):
    """Yield (code, time) of the items of a ring, where code and time alternate.

    Codes are no floats. A half event, at the beginning or where an exception came
    between the two, is left out.
    """
    code = None
    for item in events:
        if type(item) is not float:
            code = item
        elif code is not None:
            yield code, item
            code = None


def count_events(events):
    """Return the number of events of the step that has just ended, at most.

    ``events`` are the items of a ring; the last event is that of the step's end.
    """
    ends = (n for n, item in enumerate(reversed(events)) if _is_end_of_step(item))
    next(ends, None)
    return next(ends, len(events)) // 2


def _is_end_of_step(item):
    return isinstance(item, int) and item % 2 == 1


def spans_and_flights(events):
    """Return the spans and the flights of a ring's items.

    Returns
    -------
    spans : list of (kind, name, step, start_s, end_s)
        ``kind`` is an index of ``KINDS``. The spans of a lap do not contain the calls
        during it: of a lap of communication, they are the time that packs and unpacks.
    flights : list of (bucket, step, start_s, end_s)
        In the order of their ends. One of which an end is not in the ring is left out.
    """
    pairs = list(pairs_of(events))
    reader = _Reader(_first_step(pairs))
    for code, time_s in pairs:
        reader.read(code, time_s)
    return reader.spans, reader.flights


def _first_step(pairs):
    """Return the step in which the first event lies, as far as events tell."""
    number = next((code for code, _ in pairs if isinstance(code, int)), 2)
    return number // 2


class _Reader:
    """Reads events in order.

    What lies between two events is a piece of a call, of a part, or of a lap. The lap's
    phase is known at its end only.
    """

    def __init__(self, step):
        self.spans, self.flights = [], []
        self._pieces, self._begun_flights = [], {}
        self._step = self._begun_step = step
        self._begun_s = None  # nothing is known of the time before the first event
        self._is_backward, self._stack, self._inner = False, [], 0

    def read(self, code, time_s):
        """Read one event."""
        if isinstance(code, int):
            self._mark(code, time_s)
        elif isinstance(code, tuple):
            self._bucket(*code, time_s)
        elif code in PHASES:
            self._edge(time_s)
            self._lap(code)
        elif code == BREAK:
            self._edge(time_s)
            self._pieces.clear()
        elif code == END:
            self._end(time_s)
        elif self._is_in_call():
            self._inner += 1
        else:
            self._edge(time_s)
            self._stack.append(code)

    def _is_in_call(self):
        return bool(self._stack) and self._stack[-1] not in PARTS

    def _edge(self, time_s):
        """End a piece, and begin the next one."""
        begun_s = self._begun_s
        if begun_s is not None and time_s > begun_s:
            piece = self._begun_step, begun_s, time_s
            if self._stack:
                name = self._stack[-1]
                self.spans.append((KINDS.index(_kind_of(name)), name, *piece))
            else:
                place = "backward" if self._is_backward else "forward"
                self._pieces.append((place, *piece))
        self._begun_s, self._begun_step = time_s, self._step

    def _lap(self, phase):
        if self._stack:
            return
        for place, *piece in self._pieces:
            name = {"compute": place, "communication": "pack"}.get(phase, phase)
            self.spans.append((KINDS.index(name), name, *piece))
        self._pieces.clear()
        if phase == "input":
            self._is_backward = False

    def _mark(self, code, time_s):
        step, is_done = divmod(code, 2)
        self._step = step + is_done
        if is_done:  # its last lap has just ended
            self._begun_step = self._step
        else:
            self._edge(time_s)
            self._is_backward = True

    def _bucket(self, bucket, is_end, time_s):
        if not is_end:
            self._begun_flights[bucket] = self._step, time_s
        elif bucket in self._begun_flights:
            self.flights.append((bucket, *self._begun_flights.pop(bucket), time_s))

    def _end(self, time_s):
        if self._inner:
            self._inner -= 1
            return
        self._edge(time_s)
        if self._stack:
            self._stack.pop()


def _kind_of(name):
    """Return the kind of a call or part."""
    if name in PARTS:
        return name
    return "wait" if name in WAITS else "collective"
