"""A line search for the strong Wolfe conditions, on scalars."""

import math
from typing import NamedTuple

# A trial keeps this fraction of the interval from its ends, where it gains little.
MARGIN = 0.1
# Growth of the step while the function still falls steeply.
GROWTH = (2.0, 10.0)
# Factor on the step after a non-finite value: overflow needs a much shorter step.
RETREAT = 0.1


class Point(NamedTuple):
    """Value and slope of the function at one step length."""

    step: float
    f: float
    slope: float


class Found(NamedTuple):
    """Result of a search.

    If ``satisfied``, ``point`` satisfies both conditions; else it is the best point
    seen, possibly the start (``point.step == 0``).
    """

    point: Point
    satisfied: bool
    evaluations: int


def strong_wolfe(
    phi, start, step, *, c1=1e-4, c2=0.9, noise=0.0, max_evaluations=20
):
    r"""Find a step that satisfies the strong Wolfe conditions.

    .. math::
        \phi(\alpha) \le \phi(0) + c_1 \alpha \phi'(0), \qquad
        |\phi'(\alpha)| \le c_2 |\phi'(0)|.

    Parameters
    ----------
    phi : callable
        ``phi(step) -> (value, slope)``, floats. A value or slope that is not
        finite means that the step is too long.
    start : Point
        At step 0; its slope is negative.
    step : float
        First trial, positive.
    c1, c2 : float
        ``0 < c1 < c2 < 1``. The loose ``c2 = 0.9`` suits quasi-Newton directions.
    noise : float, default 0.0
        Rounding error of a value; smaller increases are ignored. Near a minimum,
        values differ by less than rounding while slopes are still exact.
    max_evaluations : int, default 20
        Maximum number of calls of ``phi``.

    Returns
    -------
    Found
        If ``satisfied``, its point was the last one passed to ``phi``.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd ed., 2006,
       Algorithms 3.5 and 3.6; the interpolation is equation 3.59.
    .. [2] W. W. Hager and H. Zhang, "A New Conjugate Gradient Method with
       Guaranteed Descent and an Efficient Line Search", SIAM J. Optim. 16, 2005
       (the approximate condition, here with ``noise``).
    """
    how = {"c1": c1, "c2": c2, "noise": noise, "max_evaluations": max_evaluations}
    return driven(trial_steps(start, step, **how), phi)


def trial_steps(start, step, *, c1=1e-4, c2=0.9, noise=0.0, max_evaluations=20):
    """Yield the steps of `strong_wolfe`; send it value and slope at each.

    It returns the Found. The caller may thus evaluate several searches at once.
    """
    return _Search(start, c1, c2, noise, max_evaluations).bracket(step)


def driven(course, answer):
    """Return what the generator ``course`` returns; send it ``answer(request)``.

    An exception of ``answer`` is raised in the generator, which may clean up.
    """
    try:
        request = next(course)
        while True:
            try:
                found = answer(request)
            except BaseException as error:
                course.throw(error)
                raise
            request = course.send(found)
    except StopIteration as end:
        return end.value


class _Search:
    def __init__(self, start, c1, c2, noise, max_evaluations):
        self.start, self.noise = start, noise
        self.c1, self.c2 = c1, c2
        self.left, self.evaluations = max_evaluations, 0

    def bracket(self, step):
        """Lengthen the step until a good one is bracketed (algorithm 3.5)."""
        last = self.start
        while self.left:
            point = yield from self.evaluate(step)
            if self.too_high(point, last):
                return (yield from self.zoom(last, point))
            if self.flat(point):
                return Found(point, True, self.evaluations)
            if point.slope >= 0:
                return (yield from self.zoom(point, last))
            shortest, longest = (growth * step for growth in GROWTH)
            step = _minimum_of_cubic(last, point)
            # If the trial is not ahead, or NaN, the slope is getting steeper.
            step = min(max(step, shortest), longest) if step > point.step else longest
            last = point
        return Found(last, False, self.evaluations)

    def zoom(self, low, high):
        """Shrink the interval around a good step (algorithm 3.6).

        ``low`` is the best point so far.
        """
        widths = [math.inf, math.inf]  # of the last two intervals
        while self.left and self.noise < abs(low.slope * (high.step - low.step)):
            width = abs(high.step - low.step)
            step = _trial(low, high, halve=width > 2 / 3 * widths[0])
            widths = [widths[1], width]
            if step in (low.step, high.step):
                break  # neighbouring floats
            point = yield from self.evaluate(step)
            if self.too_high(point, low):
                high = point
                continue
            if self.flat(point):
                return Found(point, True, self.evaluations)
            if point.slope * (high.step - low.step) >= 0:
                high = low
            low = point
        return Found(low, False, self.evaluations)

    def evaluate(self, step):
        self.left -= 1
        self.evaluations += 1
        f, slope = yield step
        if math.isfinite(f) and math.isfinite(slope):
            return Point(step, f, slope)
        return Point(step, math.inf, math.nan)

    def too_high(self, point, best):
        """Return whether ``point`` fails condition 1 or is no better than ``best``."""
        line = self.start.f + self.c1 * point.step * self.start.slope
        if point.f > line + self.noise:
            return True
        return best.step > 0 and point.f >= best.f + self.noise

    def flat(self, point):
        return abs(point.slope) <= self.c2 * abs(self.start.slope)


def _trial(low, high, halve):
    """Return a step strictly inside the interval, if rounding permits."""
    if math.isinf(high.f):
        return low.step + RETREAT * (high.step - low.step)
    middle = low.step + 0.5 * (high.step - low.step)
    if halve:
        return middle
    step = _minimum_of_cubic(low, high)
    if not math.isfinite(step):
        return middle
    left, right = sorted((low.step, high.step))
    clear = MARGIN * (right - left)
    return min(max(step, left + clear), right - clear)


def _minimum_of_cubic(a, b):
    """Return the minimum of the cubic through points ``a`` and ``b``, or NaN.

    The cubic has the values and slopes of both points.
    """
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.step - a.step)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return math.nan
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / divisor
