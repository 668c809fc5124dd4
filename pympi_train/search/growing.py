r"""Rates that grow, and the range that their losses suggest: without MPI.

Step :math:`t` of :math:`n` has the rate :math:`a (b / a)^{t / (n - 1)}`. The loss first
falls slowly, then fast, and rises when the rate is too large [1]_.

References
----------
.. [1] L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017,
   section 3.3. arXiv:1506.01186.
"""

import statistics

from pympi_train.optim.schedule import Constant

WIDTH = 0.05  # of the smoothing, as a part of all steps
LEAST_STEPS = 5  # of the smoothing
FLAT = 0.1  # part of the steps whose median is the loss at the start
FALLEN = 0.1  # part of the whole fall, from which on a rate is worth trying
SPAN = 10.0  # at least, of the suggested range
ROUNDING = 1e-10  # part of the loss at the start that is no fall


class GrowingRate(Constant):
    """A schedule of rates that grow by the same factor in each step.

    Parameters
    ----------
    low, high : float
        The first and the last rate.
    n_steps : int
    base : float
        Learning rate of the optimizer, which factors multiply.
    """

    def __init__(self, low, high, n_steps, base):
        super().__init__()
        self._low, self._high = low, high
        self._last, self._rate = max(1, n_steps - 1), base

    def rate(self, update):
        """Return the learning rate of an update, from 0."""
        if update >= self._last:
            return self._high
        u = update / self._last  # no quotient of the ends, which may be too large
        return self._low ** (1 - u) * self._high**u

    def factor(self, update, *, steps_per_epoch=1, total_updates=1):
        """Return the factor on the optimizer's learning rate."""
        return self.rate(update) / self._rate


class Smoothing:
    """An exponential moving average, without the bias of its start.

    Parameters
    ----------
    n_steps : int
        Of the whole run, of which it spans the part ``WIDTH``.
    """

    def __init__(self, n_steps):
        self._beta = 1 - 1 / max(LEAST_STEPS, WIDTH * n_steps)
        self._mean = self._power = 0.0

    def add(self, value):
        """Add a value; return the average."""
        self._mean = self._beta * self._mean + (1 - self._beta) * value
        self._power = self._beta * self._power + (1 - self._beta)
        return self._mean / self._power


def smoothed(losses, n_steps):
    """Return the moving averages of ``losses``."""
    smoothing = Smoothing(n_steps)
    return [smoothing.add(loss) for loss in losses]


def suggest_range(rates, losses):
    """Return a range of learning rates in which to search.

    Parameters
    ----------
    rates, losses : list of float
        Smoothed.

    Returns
    -------
    dict or None
        high: the rate of the lowest loss, divided by 2. low: the rate from which on a
        tenth of the whole fall was done, at most ``high / 10``. learning_rate: between
        them, where the loss falls fastest by the logarithm of the rate. None if the
        loss never fell, or was lowest at the first rates: below twice the lowest.
    """
    if len(losses) < 3:
        return None
    least = min(range(len(losses)), key=losses.__getitem__)
    first = statistics.median(losses[: max(1, int(FLAT * len(losses)))])
    fall = first - losses[least]
    if not fall > ROUNDING * abs(first) or rates[least] / 2 <= rates[0]:
        return None
    begins = least  # the last time, since losses of batches vary: they fell before
    while begins > 0 and first - losses[begins - 1] >= FALLEN * fall:
        begins -= 1
    high = rates[least] / 2
    low = min(rates[begins], high / SPAN)
    slopes = {i: losses[i + 1] - losses[i - 1] for i in range(max(1, begins), least)}
    steepest = min(slopes, key=slopes.__getitem__) if slopes else least
    rate = min(max(rates[steepest], low), high)
    found = {"low": low, "high": high, "learning_rate": rate}
    return {name: float(f"{value:.2g}") for name, value in found.items()}
