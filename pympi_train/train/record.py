"""Timings and traffic of an epoch, for its record."""

import time

from pympi_train.comm import collectives
from pympi_train.trace.laps import PHASES

SPEED_S = 0.5  # on the slowest rank; 5 % of it are beyond the scheduler's noise


class Stopwatch:
    """Measures seconds by phase and bytes sent of an epoch.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that train together.
    strategy : Strategy
    """

    def __init__(self, comm, strategy):
        self._comm, self._strategy = comm, strategy
        self.start()

    def start(self):
        """Start the measurement of an epoch."""
        self._strategy.laps.reset()
        self._sent_before = self._strategy.sent_bytes
        self._started_s = time.perf_counter()

    def spent(self, before):
        """Return the seconds, the seconds by phase and the bytes sent on this rank.

        ``before`` is what an interrupted fit has spent on the epoch, or empty.
        """
        mine = [time.perf_counter() - self._started_s]
        mine += [self._strategy.laps.seconds[phase] for phase in PHASES]
        mine.append(self._strategy.sent_bytes - self._sent_before)
        return [a + b for a, b in zip(mine, before or [0.0] * len(mine))]

    def stop(self, n_rows, before):
        """Return samples_per_s, wall_s, seconds by phase and sent_bytes of the epoch.

        The values are means over the ranks, so equal on every rank. ``before`` is as
        for `spent`. Collective.
        """
        names = ["wall_s", *(f"{phase}_s" for phase in PHASES), "sent_bytes"]
        found = dict(zip(names, means_of(self._comm, self.spent(before))))
        return {"samples_per_s": n_rows / found["wall_s"], **found}


class Speed:
    """Measures how many rows this rank computes a second, apart from all waiting.

    Times of less than ``SPEED_S`` seconds are noise: they add up over epochs.
    """

    def __init__(self):
        self._seconds = self._rows = 0.0

    def add(self, laps, n_rows):
        """Add a part of an epoch: the lap of computing ``n_rows`` rows."""
        self._seconds += laps.seconds["compute"]
        self._rows += n_rows

    def take(self, comm):
        """Return rows a second, and start anew; 0 until some rank has measured enough.

        Collective.
        """
        (longest_s,) = collectives.reduced(comm, [self._seconds], op="MAX")
        if longest_s < SPEED_S:
            return 0.0
        speed = self._rows / self._seconds if self._seconds > 0 else 0.0
        self._seconds = self._rows = 0.0
        return speed


def means_of(comm, values):
    """Return the means over the ranks of a list of numbers. Collective."""
    return (collectives.reduced(comm, values) / comm.size).tolist()
