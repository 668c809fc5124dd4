"""The kernels of updates and norms, compared with the formulas in float64."""

import formulas
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends.scalars import adam_scalars

# 0, 1, less than a pack, a pack, odd, and more than a grid takes at a time.
SIZES = (0, 1, 7, 8, 1001, 20_011)
ALL = (None, np.int32(1))  # one run: all are weights
LR, SCALE, L2, DECAY = 0.05, 1 / 8, 0.03, 0.1
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
WIDE = {"f4": 1e-5, "f8": 1e-13}


def wide(kind, *values):
    return [kind.wide.type(value) for value in values]


def problem(kind, n, rng, n_steps=3):
    """Return starting parameters, and gradients as the kernel reads them."""
    start = rng.standard_normal(n).astype(kind.wide)
    grads = kind.store(rng.standard_normal((n_steps, n)))
    return start, grads


def tolerance(kind):
    return {"rtol": 0, "atol": 1e-5 if kind.wide == "f4" else 1e-13}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_sgd(run, place, rng, kind, n, shift):
    start, grads = problem(kind, n, rng)
    p = place(start, shift)
    for grad in grads:
        scalars = wide(kind, LR, SCALE, L2, 0)
        g = place(grad, shift)
        run("updates", f"sgd_{kind}", p, g, None, np.int64(n), *scalars, None, *ALL)
    want, _ = formulas.sgd(
        start.astype(float),
        kind.read(grads),
        lr=LR,
        grad_scale=SCALE,
        l2=L2,
        momentum=0,
        nesterov=False,
    )
    assert_allclose(p, want, **tolerance(kind))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("nesterov", [0, 1])
def test_momentum(run, place, rng, kind, n, shift, nesterov):
    start, grads = problem(kind, n, rng)
    p, v = place(start, shift), place(np.zeros(n, kind.wide), shift)
    for grad in grads:
        head = (p, place(grad, shift), v, None, np.int64(n), *wide(kind, LR, 0.9))
        scalars = wide(kind, SCALE, L2, 0)
        run(
            "updates",
            f"momentum_{kind}",
            *head,
            np.int32(nesterov),
            *scalars,
            None,
            *ALL,
        )
    want, want_v = formulas.sgd(
        start.astype(float),
        kind.read(grads),
        lr=LR,
        grad_scale=SCALE,
        l2=L2,
        momentum=0.9,
        nesterov=bool(nesterov),
    )
    assert_allclose(p, want, **tolerance(kind))
    assert_allclose(v, want_v, **tolerance(kind))


def adam_args(kind, step, *, l2=0.0, coupled=0.0, decay=0.0):
    scalars = adam_scalars(step, LR, ADAM["beta1"], ADAM["beta2"], ADAM["eps"], decay)
    return wide(kind, *scalars, SCALE, l2, coupled)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_adam(run, place, rng, kind, n, shift):
    start, grads = problem(kind, n, rng)
    p = place(start, shift)
    m, v = (place(np.zeros(n, kind.wide), shift) for _ in range(2))
    for step, grad in enumerate(grads, 1):
        head = (p, place(grad, shift), m, v, None, np.int64(n))
        scalars = adam_args(kind, step, l2=L2, decay=DECAY)
        run("updates", f"adam_{kind}", *head, *scalars, None, *ALL)
    want = formulas.adam(
        start.astype(float),
        kind.read(grads),
        lr=LR,
        grad_scale=SCALE,
        l2=L2,
        decay=DECAY,
        **ADAM,
    )
    for got, expected in zip((p, m, v), want):
        assert_allclose(got, expected, **tolerance(kind))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_adagrad(run, place, rng, kind, n, shift):
    start, grads = problem(kind, n, rng)
    p, q = place(start, shift), place(np.zeros(n, kind.wide), shift)
    for grad in grads:
        head = (p, place(grad, shift), q, None, np.int64(n))
        scalars = wide(kind, LR, 1e-8, SCALE, L2, 0)
        run("updates", f"adagrad_{kind}", *head, *scalars, None, *ALL)
    how = {"lr": LR, "eps": 1e-8, "grad_scale": SCALE, "l2": L2}
    want = formulas.adagrad(start.astype(float), kind.read(grads), **how)
    for got, expected in zip((p, q), want):
        assert_allclose(got, expected, **tolerance(kind))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("weights_first", [0, 1])
def test_penalties_act_on_weights_alone(run, place, rng, kind, shift, weights_first):
    ends = np.array([8, 16, 4000, 4008, 9001])
    n, run_of = ends[-1], np.searchsorted(ends, np.arange(ends[-1]), side="right")
    is_weight = (run_of + 1 - weights_first) % 2 == 0
    start, grads = problem(kind, n, rng, n_steps=1)
    p, m, v = (place(a, shift) for a in (start, *np.zeros((2, n), kind.wide)))
    scalars = adam_args(kind, 1, l2=L2, coupled=0.5, decay=DECAY)
    runs = place(ends), np.int32(weights_first)
    head = (p, place(grads[0], shift), m, v, None, np.int64(n))
    run("updates", f"adam_{kind}", *head, *scalars, None, *runs)
    for mine, l2, decay in ((is_weight, L2 + 0.5, DECAY), (~is_weight, 0.0, 0.0)):
        want, *_ = formulas.adam(
            start[mine].astype(float),
            kind.read(grads)[:, mine],
            lr=LR,
            grad_scale=SCALE,
            l2=l2,
            decay=decay,
            **ADAM,
        )
        assert_allclose(p[mine], want, **tolerance(kind))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_factor_clips_gradient_and_l2_but_not_weight_decay(run, place, rng, kind, name):
    n, factor, coupled = 1001, 0.25, 0.5
    start, grads = problem(kind, n, rng, n_steps=1)
    clipped = formulas.sgd(
        start.astype(float),
        kind.read(grads),
        lr=LR,
        grad_scale=factor * SCALE,
        l2=factor * L2 + coupled,
        momentum=0,
        nesterov=False,
    )[0]
    p, factors = place(start), place(np.array([factor]))
    tail = (*wide(kind, SCALE, L2, coupled), factors, *ALL)
    _update(run, place, kind, name, p, grads[0], tail)
    if name == "adam":  # the first step depends on the scale only through eps
        assert_allclose(p, start - LR * np.sign(start - clipped), atol=1e-4)
    else:
        assert_allclose(p, clipped, **tolerance(kind))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_nothing_moves_where_the_factor_is_no_number(run, place, rng, kind, name):
    start, grads = problem(kind, 1001, rng, n_steps=1)
    p, factors = place(start), place(np.array([np.nan]))
    state = _update(
        run, place, kind, name, p, grads[0], (*wide(kind, 1, 0, 0), factors, *ALL)
    )
    assert_array_equal(p, start)
    assert not any(map(np.any, state))


def _update(run, place, kind, name, p, grad, tail, copy=None):
    """Run one update of any kind; return its state."""
    n = np.int64(len(p))
    state = [place(np.zeros(len(p), kind.wide)) for _ in range(2)]
    g = place(grad)
    if name == "sgd":
        run("updates", f"sgd_{kind}", p, g, copy, n, *wide(kind, LR), *tail)
    elif name == "momentum":
        how = (*wide(kind, LR, 0.9), np.int32(0))
        run("updates", f"momentum_{kind}", p, g, state[0], copy, n, *how, *tail)
    else:
        run(
            "updates",
            f"adam_{kind}",
            p,
            g,
            *state,
            copy,
            n,
            *adam_args(kind, 1)[:7],
            *tail,
        )
    return state


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("n", [1, 1001])
def test_half_gradients_leave_a_half_copy_of_the_parameters(
    run, place, rng, kind, name, n
):
    start, grads = problem(kind, n, rng, n_steps=1)
    p, copy = place(start), place(kind.store(np.zeros(n)))
    tail = (*wide(kind, SCALE, 0, 0), None, *ALL)
    _update(run, place, kind, name, p, grads[0], tail, copy)
    if kind.dtype.itemsize == 2:
        assert_array_equal(copy, kind.store(p))
    else:
        assert not copy.any()


def norm(run, place, kind, grad, params, scalars, runs=ALL, *, limit=np.inf, clip=0.0):
    """Return the results of norm_finish."""
    partials, found = place(np.zeros(3)), place(np.zeros(2))
    head = (grad, params, np.int64(len(grad)), *wide(kind, *scalars))
    run("updates", f"norm_{kind}", *head, *runs, partials)
    last = (np.float64(limit), np.float64(clip))
    run("updates", "norm_finish", partials, np.int32(3), *last, found, grid=1)
    return found


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_norm(run, place, rng, kind, n, shift):
    start, grads = problem(kind, n, rng, n_steps=1)
    g, p = place(grads[0], shift), place(start, shift)
    ends = np.array([min(8, n), max(n, 1)])
    runs = place(ends), np.int32(0)
    got = norm(run, place, kind, g, p, (SCALE, L2, SCALE), runs)
    d = SCALE * kind.read(grads[0])
    d[8:] += L2 * start.astype(float)[8:]
    assert_allclose(got, [np.sum(d * d), 1], rtol=1e-6 if kind.wide == "f4" else 1e-13)


def test_norm_of_weights_alone(run, place, rng, kind):
    values = place(kind.store(rng.standard_normal(1001)))
    runs = place(np.array([8, 1001])), np.int32(0)
    got = norm(run, place, kind, values, None, (1, 0, 0), runs)
    assert_allclose(got[0], np.sum(kind.read(values)[8:] ** 2), rtol=1e-6)


def test_norm_has_the_same_bits_in_every_order_of_threads(orders, place, rng, kind):
    _, grads = problem(kind, 20_011, rng, n_steps=1)
    grad = place(grads[0])
    found = [norm(run, place, kind, grad, None, (1, 0, 1))[0] for run in orders]
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_gives_no_factor(run, place, rng, kind, wrong):
    values = rng.standard_normal(5000)
    values[4321] = wrong
    found = norm(
        run, place, kind, place(kind.store(values)), None, (1, 0, 1), limit=1e300
    )
    assert np.isnan(found[1]) and not np.isfinite(found[0])


def test_factor_of_a_norm_that_is_too_long_or_beyond_the_limit(run, place, kind):
    grad = place(kind.store([3.0, 4.0]))
    assert norm(run, place, kind, grad, None, (1, 0, 1), clip=10.0)[1] == 1
    assert norm(run, place, kind, grad, None, (1, 0, 1), clip=2.0)[1] == 0.4
    assert norm(run, place, kind, grad, None, (1, 0, 1), limit=25.0)[1] == 1
    assert np.isnan(norm(run, place, kind, grad, None, (1, 0, 1), limit=24.9)[1])


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_what_is_not_finite_passes_through_an_update(run, place, kind, name):
    # In a pack of 16 bytes and in the tail after it.
    p, grad = place(np.zeros(19, kind.wide)), np.ones(19)
    grad[[1, 17]], grad[[2, 18]] = np.nan, np.inf
    tail = (*wide(kind, 1, 0, 0), None, *ALL)
    state = _update(run, place, kind, name, p, kind.store(grad), tail)
    infinite = np.nan if name == "adam" else -np.inf  # inf / inf
    assert_array_equal(p[[1, 17, 2, 18]], [np.nan, np.nan, infinite, infinite])
    assert np.isfinite(np.delete(p, [1, 2, 17, 18])).all()
    if name != "sgd":
        assert_array_equal(np.flatnonzero(~np.isfinite(state[0])), [1, 2, 17, 18])
