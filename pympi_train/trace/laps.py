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
    began_s, last_s : float
        By ``perf_counter``: the last ``reset``, and the end of the last lap.
    """

    def __init__(self):
        self.append = None
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.began_s = self.last_s = perf_counter()

    def reset(self):
        """Set all phases to zero and start the first lap."""
        for phase in PHASES:
            self.seconds[phase] = 0.0
        self.start()
        self.began_s = self.last_s

    def start(self):
        """Start a lap; the time since the last lap belongs to no phase."""
        self.last_s = perf_counter()
        if self.append is not None:
            self.append(BREAK)
            self.append(self.last_s)

    def lap(self, phase):
        """End the lap and add its seconds to ``phase``."""
        now = perf_counter()
        self.seconds[phase] += now - self.last_s
        self.last_s = now
        append = self.append
        if append is not None:
            append(phase)
            append(now)
