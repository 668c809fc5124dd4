"""L-BFGS on a flat block, for functions whose value is summed over ranks."""

import numpy as np

from pympi_train.backends.numpy import ops
from pympi_train.errors import DataError
from pympi_train.flat.state import held
from pympi_train.optim.base import require
from pympi_train.optim.line_search import driven
from pympi_train.optim.minimisation import LineSearches, WorkingMemory


class LBFGS:
    r"""Limited-memory BFGS with a line search for the strong Wolfe conditions.

    .. math::
        p \leftarrow p - \alpha H g, \qquad
        H \approx (\nabla^2 f)^{-1} \text{ from the last } h
        \text{ pairs } (s, y) = (\Delta p, \Delta g).

    Parameters
    ----------
    history : int, default 10
        Pairs kept, at least 1. Memory is ``2 * history + 6`` blocks.
    tolerance : float, default 1e-5
        Stop once no element of the mean gradient exceeds it. Not negative.
    ftol : float, default 1e-14
        Stop once two iterations in a row lower f by at most ``ftol * |f|`` each. A
        single one may be due to rounding, above all in float32. 0 never stops.
    max_line_search : int, default 20
        Maximum number of evaluations in one line search, at least 1.

    Attributes
    ----------
    full_batch : bool
        True: noise from mini-batches spoils the curvature pairs.
    step : int
        Iterations done in the last `minimise`.
    state : dict
        Empty: the pairs are not state of a single step. `holdings` returns them.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    A pair is skipped if the cosine between s and y is negative or zero within
    rounding; such a pair would make H indefinite.

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

    def __init__(self, history=10, tolerance=1e-5, ftol=1e-14, max_line_search=20):
        require(
            history >= 1 and history == int(history),
            "history",
            "a whole number, at least 1",
            history,
        )
        require(tolerance >= 0, "tolerance", "not negative", tolerance)
        require(ftol >= 0, "ftol", "not negative", ftol)
        require(
            max_line_search >= 1 and max_line_search == int(max_line_search),
            "max_line_search",
            "a whole number, at least 1",
            max_line_search,
        )
        self.history, self.tolerance = int(history), float(tolerance)
        self.ftol, self.max_line_search = float(ftol), int(max_line_search)
        self.state, self.step, self._memory = {}, 0, None
        self._n_idle = 0  # iterations in a row that lowered f by at most ftol

    def allocate(self, layout, ops=None):
        """Allocate the blocks now instead of in the first `minimise`.

        Parameters
        ----------
        layout : Layout
            Layout of the parameters.
        ops : module, optional
            Not used: the operations are NumPy's.
        """
        self._memory = WorkingMemory(self.history, layout.size, layout.dtype)

    def holdings(self, layout):
        """Return the pairs, as Holdings of blocks of ``layout``."""
        if self._memory is None:
            self.allocate(layout)
        pairs = self._memory.pairs
        return [
            held(f"optimizer/{name}.{i}", layout, block, ops)
            for i in pairs.newest_first()
            for name, block in (("s", pairs.s[i]), ("y", pairs.y[i]))
        ]

    def numbers(self):
        """Return the scalar part of the state, as plain values by name."""
        if self._memory is None:
            return {}
        pairs = self._memory.pairs
        return {
            "n_pairs": pairs.n_pairs,
            "next": pairs.next,
            "scale": pairs.scale,
            "sy": list(pairs.sy),
            "n_idle": self._n_idle,
        }

    def take_numbers(self, numbers):
        """Restore the values that `numbers` returned; call it before `holdings`.

        Raises
        ------
        DataError
            If they belong to a different ``history``.
        """
        if not numbers:
            return
        pairs = self._memory.pairs
        if len(numbers["sy"]) != len(pairs.sy):
            raise DataError(
                f"state: expected an LBFGS of history {self.history}, got one of "
                f"{len(numbers['sy']) - 1}"
            )
        pairs.n_pairs, pairs.next = numbers["n_pairs"], numbers["next"]
        pairs.scale, pairs.sy = numbers["scale"], list(numbers["sy"])
        self._n_idle = numbers["n_idle"]

    def minimise(
        self,
        evaluate,
        params,
        *,
        max_iterations,
        agree=lambda *values: values,
        callback=None,
        go_on=False,
    ):
        """Minimise a smooth function of ``params``, in place.

        Parameters
        ----------
        evaluate : callable
            ``evaluate(params, grad) -> f``: writes the mean gradient, including the
            penalty, into ``grad`` and returns the mean cost in float64. Under MPI it
            sums over the ranks.
        params : ndarray, shape (n,), float32 or float64
            The starting point; overwritten with the best point found.
        max_iterations : int
            Maximum number of line searches; with 0 the function is evaluated once.
        agree : callable, optional
            ``agree(*floats) -> floats``: returns rank 0's values on every rank. All
            values that control the iteration pass through it, so that ranks whose
            sums differ in the last bit take the same branches. The default is for one
            rank.
        callback : callable, optional
            ``callback(iteration, f, gradient_norm, n_evaluations) -> bool`` after
            each iteration, from 1; the norm is the largest ``|g|``. True stops; it
            must be equal on every rank.
        go_on : bool, default False
            Whether to keep the pairs of an earlier call with the same function. Two
            calls then give the result of one.

        Returns
        -------
        Minimum
            Iterations and evaluations done, reason to stop, final f and
            largest ``|g|``.

        Raises
        ------
        DivergenceError
            If f or the gradient is not finite at the start. Inside a line search such
            a value shortens the step instead.
        ValueError
            If ``params`` is not a flat block of floats.
        Exception
            Any exception of ``evaluate``; ``params`` is then the point of the last
            iteration.

        Notes
        -----
        Collective if ``evaluate`` or ``agree`` is: every rank makes the same calls in
        the same order. An iteration takes ``2 * history + 3`` small broadcasts, and
        one more for each evaluation.
        """
        course = self.course(
            params,
            max_iterations=max_iterations,
            agree=agree,
            callback=callback,
            go_on=go_on,
        )

        def answer(point):
            with np.errstate(over="ignore", invalid="ignore"):
                return evaluate(*point)

        return driven(course, answer)

    def course(
        self,
        params,
        *,
        max_iterations,
        agree=lambda *values: values,
        callback=None,
        go_on=False,
    ):
        """Yield ``(params, grad)`` for each evaluation of `minimise`; send it f.

        The receiver writes the gradient at ``params`` to ``grad``. The generator
        returns the Minimum. Several functions may thus be evaluated at once.
        """
        if params.dtype not in (np.float32, np.float64) or params.ndim != 1:
            raise ValueError(
                f"LBFGS expected a flat block of float32 or float64, got shape "
                f"{params.shape} of {params.dtype}"
            )
        if self._memory is None or not self._memory.fits(params):
            self._memory = WorkingMemory(self.history, params.size, params.dtype)
        if not go_on:
            self._memory.pairs.n_pairs = self._n_idle = 0
        run = LineSearches(self._memory, params, agree, self.max_line_search)
        yield from run.start()
        self.step = 0
        if run.largest <= self.tolerance:
            return run.result(0, "gradient")
        for iteration in range(1, max_iterations + 1):
            last = run.f
            if not (yield from run.advance()):
                return run.result(iteration - 1, "line search")
            self.step = iteration
            stop = callback is not None and callback(
                iteration, run.f, run.largest, run.evaluations
            )
            if run.largest <= self.tolerance:
                return run.result(iteration, "gradient")
            least = self.ftol * max(abs(last), abs(run.f))
            is_idle = self.ftol > 0 and last - run.f <= least
            self._n_idle = self._n_idle + 1 if is_idle else 0
            if self._n_idle >= 2:
                return run.result(iteration, "decrease")
            if stop:
                return run.result(iteration, "callback")
        return run.result(max_iterations, "iterations")
