"""A language model: its windows, its gradient, its sums, beside an obvious version."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends import select
from pympi_train.data.batch import Batch
from pympi_train.flat.memory import empty_block
from pympi_train.models.check import check_model
from pympi_train.models.neural_ngram import NeuralNGram

N_TOKENS = 7


def make(context=3, dtype="float64", backend="numpy", **how):
    how = {"width": 4, "hidden": (5, 6), "activation": "tanh"} | how
    model = NeuralNGram(N_TOKENS, context, dtype=dtype, **how)
    model.use(select.select(backend).ops)
    return model


def make_batch(k, w, seed=0, weights=False):
    rng = np.random.default_rng([seed, k, w])
    text = rng.integers(0, N_TOKENS, (k, w + 1))
    found = rng.uniform(0.5, 2, k) if weights else None
    return Batch(text[:, :-1].astype(np.int32), text[:, 1:].astype(np.intp), found)


def params_of(model, seed=1):
    block = empty_block(model.layout)
    model.init(model.layout.views(block), seed)
    return model.layout.views(block)


def plain_logits(params, tokens, context):
    """The logits of the token after ``tokens``, one window at a time."""
    padded = [N_TOKENS] * context + [int(t) for t in tokens]
    h = np.concatenate([params[0][t] for t in padded[-context:]])
    for weight, bias in zip(params[1:-2:2], params[2:-2:2]):
        h = np.tanh(h @ weight + bias)
    return h @ params[-2] + params[-1]


def plain_loss(params, batch, context):
    total = 0.0
    for i, (tokens, targets) in enumerate(zip(batch.x, batch.y)):
        losses = []
        for j, target in enumerate(targets):
            z = plain_logits(params, tokens[: j + 1], context)
            losses.append(np.log(np.exp(z).sum()) - z[target])
        weight = 1 if batch.weights is None else batch.weights[i]
        total += weight * np.mean(losses)
    return total


@pytest.mark.parametrize("backend", select.present())
@pytest.mark.parametrize("context, w", [(1, 4), (3, 6), (3, 2), (4, 4), (5, 1)])
@pytest.mark.parametrize("weights", [False, True])
def test_loss_and_gradient(context, w, weights, backend):
    model, batch = make(context, backend=backend), make_batch(4, w, weights=weights)
    params = params_of(model)
    want = plain_loss(params, batch, context)
    assert_allclose(model.loss(params, batch), want, rtol=1e-12)
    check_model(model, batch, max_entries=40)


def test_predictions():
    model, batch = make(), make_batch(5, 6)
    params = params_of(model)
    each = model.predict_each(params, batch.x).reshape(5, 6, N_TOKENS).copy()
    for w in (1, 2, 6):  # also shorter than the context
        found = model.predict(params, batch.x[:, :w]).copy()
        want = [plain_logits(params, row[:w], 3) for row in batch.x]
        assert_allclose(found, want, rtol=1e-12, atol=1e-12)
        assert_allclose(each[:, w - 1], want, rtol=1e-12, atol=1e-12)
    p = model.probabilities(found)
    assert_allclose(p.sum(axis=1), 1) and assert_array_equal(
        model.decide(found), p.argmax(axis=1)
    )
    with pytest.raises(RuntimeError, match="since predict"):
        model.gradient(params, params)


def test_windows_of_other_lengths_follow():
    model = make()
    params = params_of(model)
    for w in (6, 4, 9, 2):
        batch = make_batch(4, w)
        want = plain_loss(params, batch, 3)
        assert_allclose(model.loss(params, batch), want, rtol=1e-12)


def test_backends_agree():
    found = []
    for backend in select.present():
        model, batch = make(dtype="float32", backend=backend), make_batch(40, 9)
        params = params_of(model)
        grads = model.layout.views(empty_block(model.layout))
        loss = float(model.loss(params, batch))
        model.gradient(params, grads)
        found.append([loss, *(grad.copy() for grad in grads)])
    for one, other in zip(found[0], found[-1]):
        assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_initial_parameters():
    model = make(context=2, width=500, hidden=(3,))
    table, weight, bias, *_ = params_of(model)
    assert table.shape == (N_TOKENS + 1, 500) and weight.shape == (1000, 3)
    assert abs(table.mean()) < 0.1 and 0.9 < table.var() < 1.1
    assert not bias.any() and not np.isin(weight, table).any()
    names = [tensor.name for tensor in model.layout.tensors]
    assert names[:2] == ["embedding", "layers.0.weight"]
    again = params_of(model)
    assert all(map(np.array_equal, again, params_of(model)))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": np.zeros((2, 3))}, r"x: expected tokens, integers of shape \(k, w\)"),
        ({"x": np.zeros(3, int)}, r"x: expected tokens, .* got int64 of \(3,\)"),
        ({"y": np.zeros((2, 2), int)}, r"y: expected shape \(2, 3\), int64, for 2 win"),
        ({"weights": np.ones(3)}, r"weights: expected shape \(2,\), float64"),
        ({"x": np.full((2, 3), 7)}, "class indices 0 to 6, got values from 7 to 7"),
    ],
)
def test_batches_are_checked(change, words):
    batch = Batch(np.zeros((2, 3), np.int32), np.zeros((2, 3), np.intp))
    make().check(batch)
    with pytest.raises(ValueError, match=words):
        make().check(batch._replace(**change))


@pytest.mark.parametrize(
    "how, words",
    [
        ({"context": 0}, "context: expected an integer >= 1"),
        ({"width": 0}, "width: expected an integer >= 1"),
        ({"hidden": (3, 0)}, r"hidden\[1\]: expected an integer >= 1"),
        ({"activation": "elu"}, "activation: expected one of"),
        ({"init": "zero"}, "init: expected one of"),
    ],
)
def test_arguments_are_checked(how, words):
    with pytest.raises(ValueError, match=words):
        NeuralNGram(N_TOKENS, **how)
    with pytest.raises(ValueError, match="n_tokens: expected an integer >= 2"):
        NeuralNGram(1)
