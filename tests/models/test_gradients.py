"""Every model's gradient, and that losses and gradients are sums over rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.flat.memory import empty_block
from pympi_train.models.check import check_model, evaluate, rows


def random_point(model, seed=3):
    rng = np.random.default_rng(seed)
    params = empty_block(model.layout)
    for view in model.layout.views(params):
        view[...] = rng.standard_normal(view.shape) / 2
    return params


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 16])
def test_equals_central_differences(model, make_batch, n_rows, weighted):
    batch, params = make_batch(model, n_rows, weighted), random_point(model)
    _, grads = evaluate(model, params, batch)
    views, step = model.layout.views(params), 1e-6
    for view, grad in zip(views, grads):
        expected = np.empty_like(grad)
        for index in np.ndindex(view.shape):
            middle = view[index]
            view[index] = middle + step
            above = model.loss(views, batch)
            view[index] = middle - step
            below = model.loss(views, batch)
            view[index] = middle
            expected[index] = (above - below) / (2 * step)
        scale = max(np.abs(g).max() for g in grads)
        assert_allclose(grad, expected, rtol=1e-6, atol=1e-8 * scale)


def test_check_model_agrees(model, make_batch):
    check_model(model, make_batch(model, 9, weighted=True))


@pytest.mark.parametrize("cut", [0, 1, 4, 11])
def test_a_batch_is_the_sum_of_its_parts(model, make_batch, cut):
    batch, params = make_batch(model, 11, weighted=True), random_point(model)
    loss, whole = evaluate(model, params, batch)
    first_loss, first = evaluate(model, params, rows(batch, slice(0, cut)))
    rest_loss, rest = evaluate(model, params, rows(batch, slice(cut, None)))

    assert first_loss + rest_loss == pytest.approx(loss, rel=1e-13)
    for a, b, sum_of_both in zip(first, rest, whole):
        assert_allclose(a + b, sum_of_both, rtol=0, atol=1e-12)


def test_no_rows_give_zero(model, make_batch):
    params = random_point(model)
    evaluate(model, params, make_batch(model, 5))  # workspaces that are not fresh
    for weighted in (False, True):
        loss, grads = evaluate(model, params, make_batch(model, 0, weighted))
        assert loss == 0.0
        assert not any(grad.any() for grad in grads)


def test_weights_count_like_repeated_rows(model, make_batch):
    batch, params = make_batch(model, 4), random_point(model)
    weights = np.array([2.0, 0.0, 1.0, 3.0])
    loss, grads = evaluate(model, params, batch._replace(weights=weights))
    repeated = rows(batch, np.repeat(np.arange(4), weights.astype(int)))
    expected_loss, expected = evaluate(model, params, repeated)

    assert loss == pytest.approx(expected_loss, rel=1e-13)
    for got, want in zip(grads, expected):
        assert_allclose(got, want, rtol=0, atol=1e-12)


def test_float32_is_close_to_float64(make_model, make_batch):
    results = []
    for dtype in ("float64", "float32"):
        model = make_model(dtype=dtype)
        loss, grads = evaluate(
            model, random_point(model), make_batch(model, 12, weighted=True)
        )
        assert {grad.dtype for grad in grads} == {np.dtype(dtype)}
        results.append((loss, np.concatenate([g.ravel() for g in grads])))
    (loss, grad), (loss_32, grad_32) = results
    assert loss_32 == pytest.approx(loss, rel=1e-5)
    assert_allclose(grad_32, grad, rtol=0, atol=1e-5 * np.abs(grad).max())


@pytest.mark.parametrize("n_rows", [0, 1, 12])
def test_backends_agree(make_model, make_batch, numba_ops, n_rows):
    model = make_model(dtype="float64")
    compiled = make_model(dtype="float64")
    compiled.use(numba_ops)
    params, batch = random_point(model), make_batch(model, n_rows, weighted=True)
    loss, grads = evaluate(compiled, params, batch)
    expected_loss, expected = evaluate(model, params, batch)
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    for got, want in zip(grads, expected):
        assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_batches_of_changing_size_leave_nothing_behind(make_model, make_batch):
    used = make_model(dtype="float64")
    params = random_point(used)
    for n_rows in (3, 8, 1, 0, 5, 8, 2):
        fresh = make_model(dtype="float64")
        batch = make_batch(fresh, n_rows, weighted=n_rows % 2)
        loss, grads = evaluate(used, params, batch)
        expected_loss, expected = evaluate(fresh, params, batch)
        assert loss == expected_loss
        for got, want in zip(grads, expected):
            assert (got == want).all()


def test_gradient_can_be_asked_for_twice(model, make_batch):
    views = model.layout.views(random_point(model))
    first, second = (model.layout.views(empty_block(model.layout)) for _ in "12")
    model.loss(views, make_batch(model, 6))
    model.gradient(views, first)
    model.gradient(views, second)
    for a, b in zip(first, second):
        assert (a == b).all()
