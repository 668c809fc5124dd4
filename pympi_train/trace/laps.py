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

    def record_to(self, append):
        """Also append each lap's phase and end to a trace; see `Trace`.

        Parameters
        ----------
        append : callable or None
            Called with the phase, then with the time. None: no longer.
        """
        for name in ("lap", "reset", "start"):
            self.__dict__.pop(name, None)
        if append is None:
            return
        # Attributes of the instance, so that laps cost nothing more without a trace.
        self.lap = _recorded_lap(self, append)
        for name in ("reset", "start"):
            setattr(self, name, _recorded_break(self, getattr(self, name), append))


def _recorded_lap(laps, append):
    seconds = laps.seconds

    def lap(phase):
        now = perf_counter()
        seconds[phase] += now - laps._last
        laps._last = now
        append(phase)
        append(now)

    return lap


def _recorded_break(laps, plain, append):
    def begin():
        plain()
        append(BREAK)
        append(laps._last)

    return begin
