import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.pairs import BLOCK, Pairs, dot, largest_and_sum

optimize = pytest.importorskip("scipy.optimize")


def quadratic(n=6, condition=100.0):
    """``1/2 (p - 1)' A (p - 1)``, and A."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))
    a = q * np.geomspace(1, condition, n) @ q.T

    def evaluate(p, grad):
        grad[:] = a @ (p - 1)
        return 0.5 * float((p - 1) @ grad)

    return evaluate, a


def rosenbrock(p, grad):
    a = 1 - p[0]
    b = p[1] - p[0] ** 2
    grad[:] = -2 * a - 400 * p[0] * b, 200 * b
    return float(a * a + 100 * b * b)


def logistic(dtype="float64", l2=1e-3, n=400, d=20):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((n, d)) * np.geomspace(1, 5, d)).astype(dtype)
    signs = np.sign(x @ rng.standard_normal(d) + 3 * rng.standard_normal(n))
    signs = signs.astype(dtype)

    def evaluate(p, grad):
        margins = signs * (x @ p)
        grad[:] = x.T @ (-signs / (1 + np.exp(margins))) / n + l2 * p
        costs = np.logaddexp(0, -margins).astype(np.float64)
        return float(costs.mean() + l2 / 2 * float(p @ p))

    return evaluate, d


def scipy_minimum(evaluate, d):
    def both(p):
        grad = np.empty_like(p)
        return evaluate(p, grad), grad

    options = dict(gtol=1e-10, ftol=0, maxiter=10_000, maxfun=10_000)
    return optimize.minimize(
        both, np.zeros(d), jac=True, method="L-BFGS-B", options=options
    )


@pytest.mark.parametrize("condition, most", [(1, 2), (10, 20), (1000, 80)])
def test_quadratic(condition, most):
    evaluate, _ = quadratic(condition=condition)
    params = np.zeros(6)
    # Of condition 1, one pair is the whole inverse Hessian: the second step is exact.
    found = LBFGS(tolerance=1e-10).minimise(evaluate, params, max_iterations=most)
    assert found.reason == "gradient"
    assert_allclose(params, 1, atol=2e-10)


@pytest.mark.parametrize("history", [1, 3, 10])
def test_rosenbrock(history):
    params = np.array([-1.2, 1.0])
    settings = LBFGS(history=history, tolerance=1e-9)
    found = settings.minimise(rosenbrock, params, max_iterations=300)
    assert found.reason == "gradient"
    assert_allclose(params, 1, atol=1e-8)


@pytest.mark.parametrize("l2", [1e-4, 1e-2])
def test_logistic_regression_finds_scipys_minimum_in_few_passes(l2):
    evaluate, d = logistic(l2=l2)
    want = scipy_minimum(evaluate, d)
    params = np.zeros(d)
    settings = LBFGS(tolerance=1e-9, ftol=0)
    found = settings.minimise(evaluate, params, max_iterations=500)
    assert found.reason == "gradient"
    assert found.f == pytest.approx(want.fun, abs=1e-12)
    assert_allclose(params, want.x, rtol=0, atol=1e-7)
    assert found.evaluations <= 1.3 * found.iterations + 5
    assert found.evaluations <= 1.5 * want.nfev


def test_float32_comes_as_near_as_its_rounding():
    evaluate, d = logistic("float32")
    want = scipy_minimum(*logistic("float64"))
    params = np.zeros(d, np.float32)
    found = LBFGS().minimise(evaluate, params, max_iterations=500)
    assert found.reason == "gradient"
    assert params.dtype == np.float32
    assert found.f == pytest.approx(want.fun, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_impossible_tolerance_ends_without_complaint(dtype):
    evaluate, d = logistic(dtype)
    params = np.zeros(d, dtype)
    found = LBFGS(tolerance=0.0).minimise(evaluate, params, max_iterations=2000)
    assert found.reason in ("decrease", "line search", "gradient")
    assert found.iterations < 2000
    grad = np.zeros_like(params)
    assert evaluate(params, grad) == found.f
    assert abs(grad).max() == pytest.approx(found.gradient_norm)


def test_a_line_search_that_cannot_improve_keeps_the_point():
    def evaluate(p, grad):  # the gradient lies: f rises either way
        grad[:] = 1.0
        return float(abs(p).sum())

    params = np.zeros(3)
    found = LBFGS().minimise(evaluate, params, max_iterations=9)
    assert found.reason == "line search" and found.iterations == 0
    assert found.f == 0 and not params.any()


@pytest.mark.parametrize("most", [0, 1, 7])
def test_iterations_are_limited(most):
    evaluate, d = logistic()
    params = np.zeros(d)
    found = LBFGS().minimise(evaluate, params, max_iterations=most)
    assert found.reason == "iterations" and found.iterations == most
    assert found.f == evaluate(params, np.zeros(d))
    if not most:
        assert found.evaluations == 1 and not params.any()


def test_starting_at_the_minimum():
    evaluate, _ = quadratic()
    params = np.ones(6)
    found = LBFGS().minimise(evaluate, params, max_iterations=9)
    assert found[:4] == (0, 1, "gradient", 0.0)


def test_a_block_without_elements():
    params = np.zeros(0)
    found = LBFGS().minimise(lambda p, grad: 2.0, params, max_iterations=3)
    assert found[:4] == (0, 1, "gradient", 2.0)


def test_ftol_stops_after_two_idle_iterations():
    evaluate, d = logistic()
    values = []

    def callback(iteration, f, gradient_norm, n_evaluations):
        values.append(f)

    settings = LBFGS(tolerance=0, ftol=1e-3)
    found = settings.minimise(
        evaluate, np.zeros(d), max_iterations=500, callback=callback
    )
    assert found.reason == "decrease"
    falls = -np.diff(values) / values[:-1]
    assert (falls[-2:] <= 1e-3).all()
    idle = falls <= 1e-3
    assert not (idle[:-2] & idle[1:-1]).any()


def test_callback_sees_each_iteration_and_stops():
    evaluate, d = logistic()
    seen = []

    def callback(*values):
        seen.append(values)
        return len(seen) == 3

    found = LBFGS().minimise(
        evaluate, np.zeros(d), max_iterations=9, callback=callback
    )
    assert found.reason == "callback" and found.iterations == 3
    assert [values[0] for values in seen] == [1, 2, 3]
    assert seen[-1] == (3, found.f, found.gradient_norm, found.evaluations)
    assert all(a[1] > b[1] for a, b in zip(seen, seen[1:]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_not_finite_raises(bad):
    for f, g in ((bad, 1.0), (1.0, bad)):

        def evaluate(p, grad):
            grad[:] = 1.0
            grad[1] = g
            return f

        with pytest.raises(DivergenceError, match="at the start"):
            LBFGS().minimise(evaluate, np.zeros(3), max_iterations=9)


def test_nan_inside_a_search_shortens_the_step():
    def steep(p, grad):  # -log(p) + p: NaN left of 0
        grad[:] = 1 - 1 / p
        return float((p - np.log(p)).sum())

    params = np.array([0.05])
    found = LBFGS(tolerance=1e-9).minimise(steep, params, max_iterations=50)
    assert found.reason == "gradient"
    assert_allclose(params, 1, atol=1e-8)


def test_the_first_trial_moves_the_parameters_by_one_at_most():
    for gradient, moved in (((30.0, -10.0), 1.0), ((0.2, 0.1), 0.3)):
        points = []

        def evaluate(p, grad):
            points.append(p.copy())
            grad[:] = gradient
            return float(p @ grad)

        LBFGS(max_line_search=1).minimise(evaluate, np.zeros(2), max_iterations=1)
        assert abs(points[1]).sum() == pytest.approx(moved)


def test_a_search_cut_short_goes_back_to_its_best_point():
    def evaluate(p, grad):  # a gentle slope, and a wall from 2 on
        grad[:] = -1.0 if p[0] < 2 else 1000.0
        return float(max(-p[0], 1000 * (p[0] - 2)))

    params, seen = np.zeros(1), []
    found = LBFGS(max_line_search=2).minimise(
        evaluate, params, max_iterations=1, callback=lambda *x: seen.append(x)
    )
    # Trials at 1 (still steep) and 10 (too high), and 1 once more.
    assert params == 1 and found == (1, 4, "iterations", -1.0, 1.0)
    assert seen == [(1, -1.0, 1.0, 4)]


def test_a_failed_search_is_tried_again_along_the_gradient():
    evaluate, d = logistic()
    n_walls = 0

    def walled(p, grad):
        nonlocal n_walls
        if n_walls:
            n_walls -= 1
            return np.inf
        return evaluate(p, grad)

    def callback(iteration, f, gradient_norm, n_evaluations):
        nonlocal n_walls
        n_walls = 20 if iteration == 5 else 0

    found = LBFGS().minimise(
        walled, np.zeros(d), max_iterations=500, callback=callback
    )
    assert found.reason == "gradient" and found.iterations > 5


def test_a_pair_of_negative_curvature_is_skipped():
    def evaluate(p, grad):
        grad[:] = p**3 - p
        return float((p**4 / 4 - p**2 / 2).sum())

    params, lbfgs = np.array([0.1]), LBFGS(max_line_search=1)
    lbfgs.minimise(evaluate, params, max_iterations=1)
    assert params[0] > 0.1 and lbfgs._memory.pairs.n_pairs == 0
    lbfgs = LBFGS(tolerance=1e-9, max_line_search=1)
    lbfgs.minimise(evaluate, params, max_iterations=50)
    assert_allclose(params, 1, atol=1e-8)


def test_a_direction_that_rises_is_replaced_by_the_gradient(monkeypatch):
    evaluate, _ = quadratic(condition=10)

    def rising(self, grad, out, dot):
        out[:] = grad

    monkeypatch.setattr(Pairs, "solve", rising)
    params = np.zeros(6)
    found = LBFGS(tolerance=1e-8).minimise(evaluate, params, max_iterations=500)
    assert found.reason == "gradient"


def test_ranks_with_another_blas_take_the_same_steps(monkeypatch):
    evaluate, d = logistic()
    said = []

    def speak(*values):
        said.append(values)
        return values

    first, second = np.zeros(d), np.zeros(d)
    LBFGS().minimise(evaluate, first, max_iterations=20, agree=speak)
    heard = iter(said)
    monkeypatch.setattr(
        "pympi_train.optim.minimisation.dot", lambda a, b: (1 + 1e-9) * dot(a, b)
    )
    LBFGS().minimise(
        evaluate, second, max_iterations=20, agree=lambda *values: next(heard)
    )
    assert_array_equal(first, second)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranks_whose_sums_differ_make_the_same_decisions(dtype):
    evaluate, d = logistic(dtype)
    said, cursor = [], iter(())

    def speak(*values):
        said.append(values)
        return values

    def listen(*values):
        heard = next(cursor)
        assert len(heard) == len(values)
        return heard

    def rounded_otherwise(p, grad):
        return evaluate(p, grad) * (1 + 1e-9)

    first, second = np.zeros(d, dtype), np.zeros(d, dtype)
    settings = LBFGS(tolerance=1e-8)
    found = settings.minimise(evaluate, first, max_iterations=500, agree=speak)
    cursor = iter(said)
    other = settings.minimise(
        rounded_otherwise, second, max_iterations=500, agree=listen
    )
    assert next(cursor, None) is None
    assert other == found
    assert_array_equal(first, second)


def test_the_number_of_broadcasts_is_as_documented():
    evaluate, d = logistic()
    said = []

    def speak(*values):
        said.append(values)
        return values

    found = LBFGS(history=4).minimise(
        evaluate, np.zeros(d), max_iterations=30, agree=speak
    )
    assert found.reason == "iterations" or found.iterations > 10
    assert len(said) <= (2 * 4 + 3) * found.iterations + found.evaluations


def test_memory_is_made_once():
    evaluate, d = logistic(d=24)  # a block without padding
    lbfgs = LBFGS()
    lbfgs.allocate(Layout([Tensor("w", (d,))], "float64"))
    memory = lbfgs._memory
    results = []
    for _ in range(2):
        params = np.zeros(d)
        lbfgs.minimise(evaluate, params, max_iterations=20)
        results.append(params)
    assert lbfgs._memory is memory and lbfgs.step == 20
    assert_array_equal(*results)  # nothing left over from the first


def dense_direction(pairs, grad, n):
    """``-H grad`` with H built by the BFGS formula, equation 6.17."""
    s, y = pairs[-1]
    h = np.eye(n) * (s @ y) / (y @ y)
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = np.eye(n) - rho * np.outer(s, y)
        h = left @ h @ left.T + rho * np.outer(s, s)
    return -h @ grad


@pytest.mark.parametrize("n_added", [1, 3, 4, 9])
def test_two_loops_equal_the_dense_formula(n_added):
    n, rng = 7, np.random.default_rng(5)
    pairs, kept = Pairs(3, n, np.float64), []
    _, a = quadratic(n)
    for _ in range(n_added):
        s, y = pairs.candidate()
        s[:] = rng.standard_normal(n)
        y[:] = a @ s
        kept.append((s.copy(), y.copy()))
        pairs.add(s @ y, y @ y)
        for block in pairs.candidate():
            block[:] = np.nan  # a pair tried and skipped
    grad, out = rng.standard_normal(n), np.empty(n)
    pairs.solve(grad, out, dot)
    assert_allclose(out, dense_direction(kept[-3:], grad, n), rtol=1e-9)


@pytest.mark.parametrize("n", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_by_blocks(n, dtype):
    a, b = np.random.default_rng(n).standard_normal((2, n)).astype(dtype)
    wide = a.astype(np.float64)
    assert dot(a, b) == pytest.approx(np.sum(wide * b.astype(np.float64)), abs=1e-9)
    largest, total = largest_and_sum(a)
    assert largest == abs(wide).max(initial=0)
    assert total == pytest.approx(abs(wide).sum())


@pytest.mark.parametrize("where", [0, BLOCK, 2 * BLOCK - 1])
def test_a_nan_anywhere_is_seen(where):
    grad = np.ones(2 * BLOCK)
    grad[where] = np.nan
    assert np.isnan(largest_and_sum(grad)).all()


def test_rejects_what_is_no_flat_block():
    for params in (np.zeros((2, 2)), np.zeros(2, int)):
        with pytest.raises(ValueError, match="expected a flat block"):
            LBFGS().minimise(rosenbrock, params, max_iterations=1)


@pytest.mark.parametrize(
    "bad",
    [
        dict(history=0),
        dict(history=1.5),
        dict(tolerance=-1.0),
        dict(tolerance=np.nan),
        dict(ftol=-1.0),
        dict(max_line_search=0),
    ],
)
def test_rejects(bad):
    with pytest.raises(ValueError, match="must be .*, got"):
        LBFGS(**bad)
