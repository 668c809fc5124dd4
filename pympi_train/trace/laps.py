"""Seconds that this rank spends in each phase of the training."""

from time import perf_counter

PHASES = ("input", "compute", "communication", "update")
BREAK = "-"  # in a trace: the time since the last lap belongs to no phase


class Laps:
    """A stopwatch that adds up laps by phase.

    The time between ``start`` and the last ``lap`` belongs to exactly one phase at
    every moment, so the phases sum to the elapsed time.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each phase of ``PHASES`` since ``reset``.
    append : callable or None
        Of a `Trace`: also called with each lap's phase, then with its end.
    """

    def __init__(self):
        self.append = None
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = perf_counter()

    def reset(self):
        """Set all phases to zero and start the first lap."""
        for phase in PHASES:
            self.seconds[phase] = 0.0
        self.start()

    def start(self):
        """Start a lap; the time since the last lap belongs to no phase."""
        self._last = perf_counter()
        if self.append is not None:
            self.append(BREAK)
            self.append(self._last)

    def lap(self, phase):
        """End the lap and add its seconds to ``phase``."""
        now = perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
        append = self.append
        if append is not None:
            append(phase)
            append(now)
