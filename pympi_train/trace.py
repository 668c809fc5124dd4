"""Seconds that this rank spends in each phase of the training."""

from time import perf_counter

PHASES = ("input", "compute", "communication", "update")


class Laps:
    """A stopwatch that adds up laps by phase.

    The time between ``start`` and the last ``lap`` belongs to exactly one phase at
    every moment, so the phases sum to the elapsed time.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each phase of ``PHASES`` since ``reset``.
    """

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = perf_counter()

    def reset(self):
        """Set all phases to zero and start the first lap."""
        for phase in PHASES:
            self.seconds[phase] = 0.0
        self._last = perf_counter()

    def start(self):
        """Start a lap; the time since the last lap belongs to no phase."""
        self._last = perf_counter()

    def lap(self, phase):
        """End the lap and add its seconds to ``phase``."""
        now = perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
