"""Losses and updates of lanes: those of one training, equal bits in both backends."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("numba")
LOSSES = {
    "logistic": "logistic_loss",
    "softmax": "softmax_cross_entropy",
    "squared": "squared_error",
}
K, L = 700, 5


@pytest.fixture(params=["numpy", "numba"])
def name(request):
    return request.param


def kernels_of(name):
    return importlib.import_module(f"pympi_train.backends.{name}.lanes")


def batch_of(kind, dtype, weighted, c):
    rng = np.random.default_rng(1)
    z = (8 * rng.standard_normal((K, L, c))).astype(dtype)
    y = {
        "logistic": rng.integers(0, 2, K).astype(dtype),
        "softmax": rng.integers(0, c, K),
        "squared": rng.standard_normal((K, c)).astype(dtype),
    }[kind]
    weights = rng.uniform(0, 3, K).astype(dtype) if weighted else None
    folds = rng.integers(-1, 3, K).astype(np.int32)
    return z, y, weights, folds, np.array([0, 1, 2, -2, 1], np.int32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind, c", [("logistic", 1), ("softmax", 4), ("squared", 3)])
def test_losses(name, dtype, kind, c, weighted):
    z, y, weights, folds, held = batch_of(kind, dtype, weighted, c)
    found, losses = z.copy(), np.ones(L)
    kernel = getattr(kernels_of(name), f"{kind}_lanes")
    kernel(found, y, weights, folds, held, losses)
    ops = importlib.import_module(f"pympi_train.backends.{name}.ops")
    for lane in range(L):
        own = np.ascontiguousarray(z[:, lane])
        member = (folds != held[lane]).astype(dtype)
        factors = member if weights is None else member * weights
        loss = getattr(ops, LOSSES[kind])(own, y, factors)
        assert_allclose(losses[lane] - 1, loss, rtol=1e-5 if dtype == "f4" else 1e-12)
        assert_allclose(found[:, lane], own, rtol=1e-5, atol=1e-6)
        assert not found[member == 0, lane].any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind, c", [("logistic", 1), ("softmax", 11), ("squared", 3)])
def test_losses_have_the_same_bits(dtype, kind, c, weighted):
    z, *others = batch_of(kind, dtype, weighted, c)
    z[5, 2], z[6, 0] = np.inf, np.nan
    found = []
    for name in ("numpy", "numba"):
        own, losses = z.copy(), np.zeros(L)
        getattr(kernels_of(name), f"{kind}_lanes")(own, *others, losses)
        found.append((own, losses))
    assert_array_equal(found[0][0], found[1][0])
    assert_allclose(found[0][1], found[1][1], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("c", [1, 4])
def test_hits(name, dtype, c, weighted):
    z, y, weights, *_ = batch_of("softmax", dtype, weighted, max(c, 2))
    z = np.ascontiguousarray(z[:, :, :c])
    y = y % 2 if c == 1 else y
    hits = np.ones(L)
    kernels_of(name).count_hits(z, y, weights, hits)
    classes = z[:, :, 0] > 0 if c == 1 else z.argmax(axis=2)
    each = np.ones(K) if weights is None else weights.astype(float)
    assert_allclose(hits - 1, each @ (classes == y[:, None]))


CASES = {
    "sgd": ("sgd_update", 0, {"momentum": 0.0, "nesterov": False}),
    "momentum": ("sgd_update", 1, {"momentum": 0.9, "nesterov": False}),
    "nesterov": ("sgd_update", 1, {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("adagrad_update", 1, {"eps": 1e-8}),
}


@pytest.mark.parametrize("case", CASES)
def test_updates(name, dtype, case):
    """Each column has the bits of the update of one training."""
    update, n_state, how = CASES[case]
    kernel = update.replace("_update", "_lanes")
    rng = np.random.default_rng(2)
    params, grad, *state = (
        rng.random((9, 6)).astype(dtype) for _ in range(2 + n_state)
    )
    vectors = {n: rng.random(6).astype(dtype) for n in ("rate", "scale", "ridge")}
    found = [params.copy(), grad.copy(), *(s.copy() for s in state)]
    made_of = found if n_state or case != "sgd" else [*found, None]
    getattr(kernels_of(name), kernel)(*made_of, **vectors, **how)
    ops = importlib.import_module(f"pympi_train.backends.{name}.ops")
    for j in range(6):
        own = [np.ascontiguousarray(a[:, j]) for a in (params, grad, *state)]
        scalars = {
            "lr": float(vectors["rate"][j]),
            "grad_scale": float(vectors["scale"][j]),
            "l2": float(vectors["ridge"][j]),
        }
        made_of = own if n_state else [*own, None]
        getattr(ops, update)(*made_of, **scalars, **how)
        for mine, all_of in zip(own, found):
            assert_array_equal(mine, all_of[:, j])


def test_adam_has_the_same_bits(dtype):
    rng = np.random.default_rng(2)
    arrays = [rng.random((9, 6)).astype(dtype) for _ in range(4)]
    names = "scale", "ridge", "rate", "floor", "keep"
    vectors = {n: rng.random(6).astype(dtype) for n in names}
    found = []
    for name in ("numpy", "numba"):
        own = [a.copy() for a in arrays]
        betas = 0.9, 1 - 0.9, 0.999, 1 - 0.999
        kernels_of(name).adam_lanes(*own, **vectors, betas=betas)
        found.append(own)
    for a, b in zip(*found):
        assert_array_equal(a, b)
