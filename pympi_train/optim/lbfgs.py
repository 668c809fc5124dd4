"""L-BFGS on a flat block, for a caller whose function is summed over ranks."""

import math
from typing import NamedTuple

import numpy as np

from pympi_train.errors import DivergenceError
from pympi_train.optim.base import require
from pympi_train.optim.line_search import Point, strong_wolfe

# Elements at a time: three float64 blocks fit a first-level cache. Also short
# enough that no BLAS splits a dot product over threads, which changes its order.
BLOCK = 1024


class Minimum(NamedTuple):
    """Where a minimisation ended, and why.

    ``reason`` is one of "gradient" (within tolerance), "decrease" (below ftol),
    "line search" (no step improves: rounding), "iterations" and "callback".
    """

    iterations: int
    evaluations: int
    reason: str
    f: float
    gradient_norm: float


class LBFGS:
    r"""Limited-memory BFGS with a line search for the strong Wolfe conditions.

    .. math::
        p \leftarrow p - \alpha H g, \qquad
        H \approx (\nabla^2 f)^{-1} \text{ from the last } h
        \text{ pairs } (s, y) = (\Delta p, \Delta g).

    Parameters
    ----------
    history : int, default 10
        Pairs kept, at least 1. Memory is ``2 * history + 4`` blocks.
    tolerance : float, default 1e-5
        Stop once no element of the mean gradient is larger. Not negative.
    ftol : float, optional
        Stop once an iteration lowers f by no more than ``ftol * |f|``. The
        default is the rounding unit of the parameters' dtype; 0 never stops.
    max_line_search : int, default 20
        Evaluations in one line search at most, at least 1.

    Attributes
    ----------
    full_batch : bool
        True: noise from mini-batches spoils the curvature pairs.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    A pair is skipped where the cosine between s and y is within rounding of zero
    or negative; such a pair would make H indefinite.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd ed., 2006,
       Algorithms 7.4 and 7.5.

    Examples
    --------
    >>> import numpy as np
    >>> def evaluate(p, grad):
    ...     grad[:] = p - 3.0
    ...     return 0.5 * float(grad @ grad)
    >>> params = np.zeros(2)
    >>> LBFGS().minimise(evaluate, params, max_iterations=10).reason
    'gradient'
    >>> params
    array([3., 3.])
    """

    full_batch = True

    def __init__(self, history=10, tolerance=1e-5, ftol=None, max_line_search=20):
        require(
            history >= 1 and history == int(history),
            "history",
            "a whole number, at least 1",
            history,
        )
        require(tolerance >= 0, "tolerance", "not negative", tolerance)
        require(ftol is None or ftol >= 0, "ftol", "not negative, or None", ftol)
        require(
            max_line_search >= 1 and max_line_search == int(max_line_search),
            "max_line_search",
            "a whole number, at least 1",
            max_line_search,
        )
        self.history, self.tolerance = int(history), float(tolerance)
        self.ftol, self.max_line_search = ftol, int(max_line_search)

    def minimise(
        self,
        evaluate,
        params,
        *,
        max_iterations,
        agree=lambda *values: values,
        callback=None,
    ):
        """Minimise a smooth function of ``params``, in place.

        Parameters
        ----------
        evaluate : callable
            ``evaluate(params, grad) -> f``: writes the mean gradient, penalty
            included, into ``grad`` and returns the mean cost in float64. Under
            MPI the ranks sum inside it.
        params : ndarray, shape (n,), float32 or float64
            Start, and then the best point found.
        max_iterations : int
            Line searches at most; 0 evaluates once.
        agree : callable, optional
            ``agree(*floats) -> floats``: rank 0's values, on every rank. Whatever
            steers the iteration passes through it, so that ranks with sums that
            differ in the last bit cannot part ways. The default is for one rank.
        callback : callable, optional
            ``callback(iteration, f, gradient_norm, n_evaluations) -> bool`` after
            each iteration, from 1; the norm is the largest ``|g|``. True
            stops; it has to be the same on every rank.

        Returns
        -------
        Minimum
            Iterations and evaluations done, reason to stop, final f and
            largest ``|g|``.

        Raises
        ------
        DivergenceError
            If f or the gradient is not finite at the start. Inside a line search
            that shortens the step instead.

        Notes
        -----
        Where ``evaluate`` or ``agree`` is collective, so is this: every rank makes
        the same calls in the same order, ``2 * history + 4`` small broadcasts an
        iteration and one more for each evaluation.
        """
        run = _Run(self, evaluate, params, agree)
        run.start()
        reason = "iterations"
        if run.largest <= self.tolerance:
            return run.result(0, "gradient")
        for iteration in range(1, max_iterations + 1):
            last = run.f
            if not run.advance():
                return run.result(iteration - 1, "line search")
            stop = callback is not None and callback(
                iteration, run.f, run.largest, run.evaluations
            )
            if run.largest <= self.tolerance:
                return run.result(iteration, "gradient")
            scale = max(abs(last), abs(run.f))
            if run.ftol > 0 and last - run.f <= run.ftol * scale:
                return run.result(iteration, "decrease")
            if stop:
                return run.result(iteration, "callback")
        return run.result(max_iterations, reason)


class _Run:
    """One minimisation: its blocks, its point, its history of pairs."""

    def __init__(self, settings, evaluate, params, agree):
        if params.dtype not in (np.float32, np.float64) or params.ndim != 1:
            raise ValueError(
                f"LBFGS expected a flat block of float32 or float64, got shape "
                f"{params.shape} of {params.dtype}"
            )
        rounding = float(np.finfo(params.dtype).eps)
        self.ftol = rounding if settings.ftol is None else settings.ftol
        self.rounding, self.max_line_search = rounding, settings.max_line_search
        self._evaluate, self._agree = evaluate, agree
        self.params, self.evaluations = params, 0
        self.grad, self.last_params, self.last_grad, self.direction = (
            np.zeros_like(params) for _ in range(4)
        )
        self.history = _History(settings.history, params)

    def start(self):
        """Evaluate at the start, which has to be finite."""
        f = self.evaluate()
        self.f, self.largest, sum_ = self.agree(f, *_largest_and_sum(self.grad))
        if not (math.isfinite(self.f) and math.isfinite(self.largest)):
            raise DivergenceError(
                f"the cost is {self.f} and the largest gradient {self.largest} at the "
                f"start; expected finite ones. Look for NaN or huge values in the data"
            )
        self.first_step = min(1.0, 1.0 / sum_) if sum_ > 0 else 1.0

    def evaluate(self):
        self.evaluations += 1
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self._evaluate(self.params, self.grad))

    def agree(self, *values):
        return tuple(float(value) for value in self._agree(*values))

    def dot(self, a, b):
        return self.agree(dot(a, b))[0]

    def advance(self):
        """Make one iteration; return False if no step improves."""
        np.copyto(self.last_params, self.params)
        np.copyto(self.last_grad, self.grad)
        found = self.search()
        if found.point.step == 0 and self.history.n_pairs:
            # The pairs may be worn out by rounding: try the gradient itself.
            self.history.n_pairs = 0
            found = self.search()
        if found.point.step == 0:
            np.copyto(self.params, self.last_params)
            np.copyto(self.grad, self.last_grad)
            return False
        f, largest = found.point.f, _largest_and_sum(self.grad)[0]
        self.f, self.largest = f, self.agree(largest)[0]
        self.remember()
        return True

    def search(self):
        """Search along a new direction; ``params`` and ``grad`` end at its point."""
        slope = self.choose_direction()
        first = 1.0 if self.history.n_pairs else self.first_step
        found = strong_wolfe(
            self.evaluate_at,
            Point(0.0, self.f, slope),
            first,
            noise=self.rounding * abs(self.f),
            max_evaluations=self.max_line_search,
        )
        if found.point.step not in (0, self.step):
            # Rare: an unsatisfied search fell back on an earlier point.
            f, slope = self.evaluate_at(found.point.step)
            found = found._replace(point=Point(self.step, f, slope))
        return found

    def choose_direction(self):
        """Write the direction and return the slope along it."""
        if self.history.n_pairs:
            self.history.solve(self.last_grad, self.direction, self.dot)
            slope = self.dot(self.last_grad, self.direction)
            if slope < 0 and math.isfinite(slope):
                return slope
            self.history.n_pairs = 0
        np.negative(self.last_grad, out=self.direction)
        return self.dot(self.last_grad, self.direction)

    def evaluate_at(self, step):
        """Move to ``step`` along the direction; return value and slope there."""
        self.step = step
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(self.direction, step, out=self.params)
            self.params += self.last_params
            f = self.evaluate()
            slope = dot(self.grad, self.direction)
        return self.agree(f, slope)

    def remember(self):
        """Keep the differences from the last point as a pair, unless too flat."""
        s, y = self.history.next_pair()
        np.subtract(self.params, self.last_params, out=s)
        np.subtract(self.grad, self.last_grad, out=y)
        sy, yy, ss = self.agree(dot(s, y), dot(y, y), dot(s, s))
        if sy > self.rounding * math.sqrt(ss) * math.sqrt(yy):
            self.history.add(sy, yy)

    def result(self, iterations, reason):
        return Minimum(iterations, self.evaluations, reason, self.f, self.largest)


class _History:
    """The last pairs in a ring, and the product of H with a gradient."""

    def __init__(self, length, like):
        # One spare: the pair being tried must not overwrite a good one.
        self.s = [np.zeros_like(like) for _ in range(length + 1)]
        self.y = [np.zeros_like(like) for _ in range(length + 1)]
        self.sy = [0.0] * (length + 1)
        self.length, self.n_pairs, self.next, self.scale = length, 0, 0, 1.0
        self.work = np.zeros(min(BLOCK, like.size), like.dtype)

    def next_pair(self):
        return self.s[self.next], self.y[self.next]

    def add(self, sy, yy):
        self.sy[self.next], self.scale = sy, sy / yy
        self.next = (self.next + 1) % (self.length + 1)
        self.n_pairs = min(self.n_pairs + 1, self.length)

    def solve(self, grad, out, dot):
        """Write ``-H grad`` into ``out``: the two-loop recursion, Algorithm 7.4."""
        newest_first = [
            (self.next - 1 - i) % (self.length + 1) for i in range(self.n_pairs)
        ]
        np.negative(grad, out=out)
        alphas = {}
        for i in newest_first:
            alphas[i] = dot(self.s[i], out) / self.sy[i]
            self.add_multiple(out, -alphas[i], self.y[i])
        out *= self.scale
        for i in reversed(newest_first):
            beta = dot(self.y[i], out) / self.sy[i]
            self.add_multiple(out, alphas[i] - beta, self.s[i])

    def add_multiple(self, out, factor, x):
        """``out += factor * x``, without a temporary of full size."""
        for i in range(0, out.size, BLOCK):
            part = x[i : i + BLOCK]
            work = self.work[: part.size]
            np.multiply(part, factor, out=work)
            out[i : i + BLOCK] += work


def dot(a, b):
    """Return ``a @ b``, accumulated in float64, block by block in a fixed order."""
    total = 0.0
    for i in range(0, a.size, BLOCK):
        total += float(
            np.dot(
                a[i : i + BLOCK].astype(np.float64, copy=False),
                b[i : i + BLOCK].astype(np.float64, copy=False),
            )
        )
    return total


def _largest_and_sum(grad):
    """Return the largest magnitude and the sum of magnitudes, as floats."""
    largest, total = 0.0, 0.0
    for i in range(0, grad.size, BLOCK):
        magnitudes = np.abs(grad[i : i + BLOCK])
        # max() of Python would drop a NaN.
        largest = float(np.maximum(largest, magnitudes.max()))
        total += float(magnitudes.sum(dtype=np.float64))
    return largest, total
