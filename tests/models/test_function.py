"""A model made from a plain function."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.data.batch import Batch
from pympi_train.flat.memory import Tensor, empty_block
from pympi_train.models.check import check_model, evaluate
from pympi_train.models.function import FunctionModel
from pympi_train.models.linear import Linear

TENSORS = [Tensor("weight", (3, 2)), Tensor("intercept", (2,), is_weight=False)]
RNG = np.random.default_rng(0)
BATCH = Batch(RNG.standard_normal((6, 3)), RNG.standard_normal((6, 2)))


def half_squares(params, batch, grads):
    error = batch.x @ params["weight"] + params["intercept"] - batch.y
    grads["weight"][...] = batch.x.T @ error
    grads["intercept"][...] = error.sum(axis=0)
    return 0.5 * (error**2).sum()


def make(function=half_squares, **arguments):
    return FunctionModel(TENSORS, function, dtype="float64", **arguments)


def test_equals_the_model_of_the_same_loss():
    linear = Linear(3, 2, dtype="float64")
    params = np.random.default_rng(1).standard_normal(linear.layout.size)
    loss, grads = evaluate(make(), params, BATCH)
    expected_loss, expected = evaluate(linear, params, BATCH)
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    for got, want in zip(grads, expected):
        assert_allclose(got, want, rtol=1e-13)


def test_passes_check_model():
    check_model(make(), BATCH)


def test_adding_into_the_gradient_is_the_same_as_writing_it():
    def adding(params, batch, grads):
        loss = 0.0
        for x, y in zip(batch.x, batch.y):
            error = x @ params["weight"] + params["intercept"] - y
            grads["weight"] += np.outer(x, error)
            grads["intercept"] += error
            loss += 0.5 * error @ error
        return loss

    check_model(make(adding), BATCH)


def test_tensors_left_alone_have_no_gradient():
    def only_intercept(params, batch, grads):
        grads["intercept"][...] = 1.0
        return 1.0

    model = make(only_intercept)
    _, (weight, intercept) = evaluate(model, empty_block(model.layout), BATCH)
    assert not weight.any()
    assert intercept.tolist() == [1, 1]


def test_replaced_gradient_is_an_error_that_says_what_to_write():
    def replacing(params, batch, grads):
        grads["weight"] = np.ones((3, 2))
        return 1.0

    model = make(replacing)
    with pytest.raises(ValueError, match=r"grads\['weight'\]\[\.\.\.\] = "):
        evaluate(model, empty_block(model.layout), BATCH)


@pytest.mark.parametrize("returned", [None, [1.0]])
def test_loss_that_is_no_number(returned):
    model = make(lambda params, batch, grads: returned)
    with pytest.raises(ValueError, match="expected the loss sum as a number"):
        model.loss(model.layout.views(empty_block(model.layout)), BATCH)


def test_starts_at_zero_or_where_it_is_told():
    views = make().layout.views(np.ones(16))
    make().init(views, seed=1)
    assert not any(view.any() for view in views)

    def init(params, seed):
        params["intercept"][...] = seed

    make(init=init).init(views, seed=7)
    assert views[1].tolist() == [7, 7]


def test_predict_and_decide():
    def predict(params, x):
        return x @ params["weight"]

    model = make(predict=predict, n_outputs=2, task="classification")
    views = model.layout.views(np.arange(16.0))
    outputs = model.predict(views, BATCH.x)
    assert_allclose(outputs, BATCH.x @ np.arange(6.0).reshape(3, 2))
    assert (model.decide(outputs) == outputs.argmax(axis=1)).all()

    other = make(decide=lambda outputs: np.zeros(len(outputs), np.intp))
    assert other.decide(outputs).tolist() == [0] * 6


def test_predict_left_out():
    model = make()
    with pytest.raises(ValueError, match=r"pass FunctionModel\(\.\.\., predict=f\)"):
        model.predict([], BATCH.x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(dtype="int32"), "'float64', got 'int32'"),
        (dict(task="ranking"), "task: expected one of .* got 'ranking'"),
        (dict(task="regression"), "predict: expected a function with task 'regress"),
        (dict(n_outputs=0), "n_outputs: expected an integer >= 1, got 0"),
        (dict(tensors=[Tensor("a", (1,))] * 2), r"unique names, got \['a', 'a'\]"),
    ],
)
def test_constructor_refuses(arguments, words):
    tensors = arguments.pop("tensors", TENSORS)
    with pytest.raises(ValueError, match=words):
        FunctionModel(tensors, half_squares, **arguments)
