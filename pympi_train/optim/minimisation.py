"""One minimisation by L-BFGS: its point, its directions and its line searches."""

import math
from typing import NamedTuple

import numpy as np

from pympi_train.errors import DivergenceError
from pympi_train.optim.line_search import Point, trial_steps
from pympi_train.optim.pairs import Pairs, dot, largest_and_sum


class Minimum(NamedTuple):
    """Result of a minimisation, and why it ended.

    ``reason`` is one of "gradient" (within tolerance), "decrease" (below ftol),
    "line search" (no step improves: rounding), "iterations" and "callback".
    """

    iterations: int
    evaluations: int
    reason: str
    f: float
    gradient_norm: float


class WorkingMemory:
    """The blocks that a minimisation needs besides the caller's parameters."""

    def __init__(self, history, size, dtype):
        self.grad, self.last_params, self.last_grad, self.direction = (
            np.zeros(size, dtype) for _ in range(4)
        )
        self.pairs = Pairs(history, size, dtype)

    def fits(self, params):
        """Return whether the blocks are of the size and type of ``params``."""
        return self.grad.shape == params.shape and self.grad.dtype == params.dtype


class LineSearches:
    """One minimisation: its current point and its steps."""

    def __init__(self, memory, params, agree, max_line_search):
        self.grad, self.direction = memory.grad, memory.direction
        self.last_params, self.last_grad = memory.last_params, memory.last_grad
        self.pairs, self.params, self.evaluations = memory.pairs, params, 0
        self.rounding = float(np.finfo(params.dtype).eps)
        self.max_line_search = max_line_search
        self._agree = agree

    def start(self):
        """Evaluate at the start; raise DivergenceError unless it is finite."""
        f = yield from self.evaluate()
        self.f, self.largest, self.sum = self.agree(f, *largest_and_sum(self.grad))
        if not (math.isfinite(self.f) and math.isfinite(self.sum)):
            raise DivergenceError(
                f"the cost is {self.f} and the largest gradient {self.largest} at the "
                f"start; expected finite ones. Look for NaN or huge values in the data"
            )

    def evaluate(self):
        self.evaluations += 1
        f = yield self.params, self.grad
        return float(f)

    def agree(self, *values):
        return tuple(float(value) for value in self._agree(*values))

    def dot(self, a, b):
        return self.agree(dot(a, b))[0]

    def advance(self):
        """Run one iteration; return False if no step improves f."""
        np.copyto(self.last_params, self.params)
        np.copyto(self.last_grad, self.grad)
        try:
            found = yield from self.search()
            if found.point.step == 0 and self.pairs.n_pairs:
                # Rounding may have spoiled the pairs: try steepest descent.
                self.pairs.n_pairs = 0
                found = yield from self.search()
        except BaseException:
            np.copyto(self.params, self.last_params)
            raise
        if found.point.step == 0:
            np.copyto(self.params, self.last_params)
            np.copyto(self.grad, self.last_grad)
            return False
        self.f = found.point.f
        self.largest, self.sum = self.agree(*largest_and_sum(self.grad))
        self.remember()
        return True

    def search(self):
        """Search along a new direction; move ``params`` and ``grad`` to the result."""
        slope = self.choose_direction()
        # Without curvature, bound the sum of all parameter changes by 1.
        first = 1.0 if self.pairs.n_pairs else min(1.0, 1.0 / self.sum)
        trials = trial_steps(
            Point(0.0, self.f, slope),
            first,
            noise=self.rounding * abs(self.f),
            max_evaluations=self.max_line_search,
        )
        found = yield from self.at_each_step(trials)
        if found.point.step not in (0, self.step):
            # Rare: an unsatisfied search fell back on an earlier point.
            f, slope = yield from self.evaluate_at(found.point.step)
            found = found._replace(point=Point(self.step, f, slope))
        return found

    def at_each_step(self, trials):
        """Evaluate at each of the steps that ``trials`` yields; return its result."""
        try:
            step = next(trials)
            while True:
                found = yield from self.evaluate_at(step)
                step = trials.send(found)
        except StopIteration as end:
            return end.value

    def choose_direction(self):
        """Write the direction and return the slope along it."""
        if self.pairs.n_pairs:
            self.pairs.solve(self.last_grad, self.direction, self.dot)
            slope = self.dot(self.last_grad, self.direction)
            if slope < 0 and math.isfinite(slope):
                return slope
            self.pairs.n_pairs = 0
        np.negative(self.last_grad, out=self.direction)
        return self.dot(self.last_grad, self.direction)

    def evaluate_at(self, step):
        """Move to ``step`` along the direction; return value and slope there."""
        self.step = step
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(self.direction, step, out=self.params)
            self.params += self.last_params
        f = yield from self.evaluate()
        with np.errstate(over="ignore", invalid="ignore"):
            slope = dot(self.grad, self.direction)
        return self.agree(f, slope)

    def remember(self):
        """Store the differences from the last point as a pair, if usable."""
        s, y = self.pairs.candidate()
        np.subtract(self.params, self.last_params, out=s)
        np.subtract(self.grad, self.last_grad, out=y)
        sy, yy, ss = self.agree(dot(s, y), dot(y, y), dot(s, s))
        if sy > self.rounding * math.sqrt(ss) * math.sqrt(yy):
            self.pairs.add(sy, yy)

    def result(self, iterations, reason):
        return Minimum(iterations, self.evaluations, reason, self.f, self.largest)
