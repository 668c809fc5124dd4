"""Seconds before the first step of a training, by part."""

import os
import time


class StartUp:
    """A stopwatch for the parts of a start, in the order in which they come.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each part on this rank. Every part ends with a collective call, so
        that all ranks see about the seconds of the slowest.
    """

    def __init__(self):
        self.seconds = {}
        self._last_s = time.perf_counter()

    def lap(self, part):
        """End a part, and begin the next."""
        now_s = time.perf_counter()
        self.seconds[part] = now_s - self._last_s
        self._last_s = now_s


def describe_startup(seconds, launch_s=None):
    """Return "launch 1.2 s, data 0.3 s, ...": launch only if it is known."""
    parts = {} if launch_s is None else {"launch": launch_s}
    return ", ".join(f"{k} {v:.1f} s" for k, v in {**parts, **seconds}.items())


def process_age_s():
    """Return the seconds since this process started; None where no /proc says it.

    They are those of starting Python, of the imports and of MPI_Init.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            # Field 22, in clock ticks since boot; field 2, a name, may hold blanks.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return age_s - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
