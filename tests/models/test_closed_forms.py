"""Losses and gradients where pencil and paper, or one plain line, know the answer."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.data.batch import Batch
from pympi_train.models.check import evaluate
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax

X = np.array([[1.0, 2], [2, 3], [3, 4], [4, 5]])


def block(*arrays):
    """Return a flat float64 block, each tensor padded to multiples of 8."""
    parts = []
    for array in map(np.asarray, arrays):
        flat = array.astype(float).ravel()
        parts += [flat, np.zeros(-flat.size % 8)]
    return np.concatenate(parts)


def test_linear_at_zero():
    y = np.array([[1.0], [2], [3], [4]])
    model = Linear(2, intercept=False, dtype="float64")
    loss, (weight,) = evaluate(model, block([0, 0]), Batch(X, y))
    assert loss == (1 + 4 + 9 + 16) / 2
    assert_allclose(weight, -X.T @ y)


def test_linear_one_step_from_zero_is_the_cost_of_the_text_book():
    y = np.array([[1.0], [2], [3], [4]])
    model = Linear(2, dtype="float64")
    loss, (weight, intercept) = evaluate(model, block([[1], [-1]], [0.5]), Batch(X, y))
    h = X[:, :1] - X[:, 1:] + 0.5
    assert loss / 4 == pytest.approx(((h - y) ** 2).sum() / (2 * 4))
    assert_allclose(weight, X.T @ (h - y))
    assert_allclose(intercept, (h - y).sum(axis=0))


def test_logistic_at_zero():
    y = np.array([0.0, 0, 1, 1])
    model = Logistic(2, dtype="float64")
    loss, (weight, intercept) = evaluate(model, block([0, 0], [0]), Batch(X, y))
    assert loss == pytest.approx(4 * math.log(2))
    assert_allclose(weight[:, 0], X.T @ (0.5 - y))
    assert_allclose(intercept, [0], atol=1e-15)


def test_softmax_at_zero():
    y, weights = np.array([0, 1, 2, 2]), np.array([1.0, 2, 3, 4])
    model = Softmax(2, 3, dtype="float64")
    params = block(np.zeros((2, 3)), np.zeros(3))
    loss, (weight, intercept) = evaluate(model, params, Batch(X, y, weights))
    delta = weights[:, None] * (1 / 3 - np.eye(3)[y])
    assert loss == pytest.approx(10 * math.log(3))
    assert_allclose(weight, X.T @ delta)
    assert_allclose(intercept, delta.sum(axis=0))


def test_softmax_of_two_classes_is_logistic_regression():
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((2, 1)), rng.standard_normal(1)
    y = np.array([0, 1, 1, 0])
    one, (weight, intercept) = evaluate(
        Logistic(2, dtype="float64"), block(w, b), Batch(X, y.astype(float))
    )
    two_columns = block(np.hstack([0 * w, w]), [0, b[0]])
    two, grads = evaluate(Softmax(2, 2, dtype="float64"), two_columns, Batch(X, y))
    assert two == pytest.approx(one)
    assert_allclose(grads[0][:, 1:], weight)
    assert_allclose(grads[1][1:], intercept)
    assert_allclose(grads[0][:, 0], -weight[:, 0])


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_mlp_without_hidden_layers_is_linear_regression(n_outputs):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4, n_outputs))
    params = block(rng.standard_normal((2, n_outputs)), rng.standard_normal(n_outputs))
    mlp = MLP(2, [], n_outputs, task="regression", dtype="float64")
    linear = Linear(2, n_outputs, dtype="float64")
    loss, grads = evaluate(mlp, params, Batch(X, y))
    expected_loss, expected = evaluate(linear, params, Batch(X, y))
    assert loss == expected_loss
    for got, want in zip(grads, expected):
        assert_allclose(got, want, rtol=0, atol=0)


def gelu(z):
    return 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


PLAIN = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "gelu": gelu}


@pytest.mark.parametrize("activation", PLAIN)
def test_mlp_predicts_what_the_formula_says(activation):
    rng = np.random.default_rng(5)
    model = MLP(2, [3, 4], 2, activation=activation, dtype="float64")
    tensors = [rng.standard_normal(t.shape) for t in model.layout.tensors]
    w0, b0, w1, b1, w2, b2 = tensors
    a = PLAIN[activation]
    outputs = model.predict(model.layout.views(block(*tensors)), X)
    assert_allclose(outputs, a(a(X @ w0 + b0) @ w1 + b1) @ w2 + b2, rtol=1e-13)


def test_large_logits_stay_finite():
    big = 1e4
    model = Softmax(2, 2, intercept=False, dtype="float64")
    params = block([[big, -big], [big, -big]])
    loss, (weight,) = evaluate(model, params, Batch(X, np.array([0, 0, 1, 1])))
    assert loss == pytest.approx(2 * big * (7 + 9))  # z_0 - z_1 of the two wrong rows
    assert np.isfinite(weight).all()


def test_nan_in_a_feature_reaches_the_loss(model, make_batch):
    batch = make_batch(model, 4)
    batch.x[2, 1] = np.nan
    views = model.layout.views(np.full(model.layout.size, 0.25))
    assert math.isnan(model.loss(views, batch))


def test_decide():
    logistic, softmax = Logistic(2), Softmax(2, 3)
    assert logistic.decide(np.array([[-1.0], [0], [2]])).tolist() == [0, 0, 1]
    assert softmax.decide(np.array([[1.0, 3, 2], [5, 4, 5]])).tolist() == [1, 0]
    assert logistic.decide(np.empty((0, 1))).dtype == np.intp
    assert softmax.decide(np.empty((0, 3))).shape == (0,)
