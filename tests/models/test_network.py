"""Layouts, and what is refused with which words."""

import numpy as np
import pytest

from pympi_train.data.batch import Batch
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax


def described(model):
    return [(t.name, t.shape, t.is_weight) for t in model.layout.tensors]


def test_layout_of_a_linear_model():
    expected = [("weight", (4, 3), True), ("intercept", (3,), False)]
    assert described(Softmax(4, 3)) == expected
    assert described(Linear(4, 3)) == expected
    assert described(Linear(4, 3, intercept=False)) == expected[:1]
    assert described(Logistic(4)) == [
        ("weight", (4, 1), True),
        ("intercept", (1,), False),
    ]


def test_layout_of_an_mlp():
    assert described(MLP(4, [6, 5], 3)) == [
        ("layers.0.weight", (4, 6), True),
        ("layers.0.bias", (6,), False),
        ("layers.1.weight", (6, 5), True),
        ("layers.1.bias", (5,), False),
        ("layers.2.weight", (5, 3), True),
        ("layers.2.bias", (3,), False),
    ]


@pytest.mark.parametrize(
    ("model", "task", "n_outputs", "y_dtype"),
    [
        (Linear(2, 3), "regression", 3, np.float32),
        (Linear(2, dtype="float64"), "regression", 1, np.float64),
        (Logistic(2), "classification", 1, np.float32),
        (Softmax(2, 3), "classification", 3, np.intp),
        (MLP(2, [2], 4), "classification", 4, np.intp),
        (MLP(2, [2], 4, task="regression"), "regression", 4, np.float32),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_loop_reads(model, task, n_outputs, y_dtype):
    assert (model.task, model.n_outputs, model.y_dtype) == (task, n_outputs, y_dtype)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(0), "n_features: expected an integer >= 1, got 0"),
        (lambda: Linear(2, 0), "n_targets: expected an integer >= 1, got 0"),
        (lambda: Linear(2.5), "n_features: expected an integer >= 1, got 2.5"),
        (lambda: Softmax(2, 1), "n_classes: expected an integer >= 2, got 1"),
        (lambda: Softmax(2, 3, dtype="float16"), "'float64', got 'float16'"),
        (lambda: Logistic(2, dtype="real"), "'float64', got 'real'"),
        (lambda: MLP(2, [3, -1], 2), r"hidden\[1\]: expected an integer >= 1, got -1"),
        (lambda: MLP(2, [3], 2, activation="selu"), "'gelu', got 'selu'"),
        (lambda: MLP(2, [], 2, activation="selu"), "'gelu', got 'selu'"),
        (lambda: MLP(2, [3], 2, task="ranking"), "'regression', got 'ranking'"),
    ],
)
def test_constructor_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


GOOD = Batch(np.zeros((4, 2), "f4"), np.zeros(4, np.intp), np.ones(4, "f4"))


@pytest.mark.parametrize("used_before", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(x=np.zeros((4, 3), "f4")), r"x: expected shape \(k, 2\), got \(4, 3\)"),
        (dict(x=np.zeros(4, "f4")), r"x: expected shape \(k, 2\), got \(4,\)"),
        (dict(x=np.zeros((4, 2))), "x: expected float32, got float64; convert"),
        (dict(y=np.zeros(3, np.intp)), r"y: expected shape \(4,\), .* got \(3,\)"),
        (dict(y=np.zeros((4, 1), np.intp)), r"y: .* got \(4, 1\), int64"),
        (dict(y=np.zeros(4, "f4")), "y: expected .* int64, .* float32"),
        (dict(weights=np.ones(5, "f4")), r"weights: .* for 4 rows, got \(5,\)"),
        (dict(weights=np.ones(4)), "weights: expected .* float32, .* float64"),
    ],
)
def test_batch_that_does_not_fit(change, words, used_before):
    model = Softmax(2, 3)
    views = model.layout.views(np.zeros(model.layout.size, "f4"))
    if used_before:
        model.loss(views, GOOD)
    with pytest.raises(ValueError, match=words):
        model.loss(views, GOOD._replace(**change))
    model.loss(views, GOOD)  # still usable


def test_predict_refuses_other_features():
    model = Softmax(2, 3)
    views = model.layout.views(np.zeros(model.layout.size, "f4"))
    with pytest.raises(ValueError, match=r"got \(4, 5\)"):
        model.predict(views, np.zeros((4, 5), "f4"))


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        (Softmax(1, 3), np.array([0, 3]), "indices 0 to 2, got values from 0 to 3"),
        (Softmax(1, 3), np.array([-1, 2]), "indices 0 to 2, got values from -1 to 2"),
        (Logistic(1), np.array([0, 2], "f4"), "expected 0 or 1, got 2.0 in row 1"),
        (Logistic(1), np.array([np.nan, 1], "f4"), "got nan in row 0"),
    ],
    ids=["above", "below", "two", "nan"],
)
def test_check_reads_every_label(model, y, words):
    with pytest.raises(ValueError, match=words):
        model.check(Batch(np.zeros((2, 1), "f4"), y))


def test_check_takes_what_fits(model, make_batch):
    for n_rows in (0, 1, 9):
        model.check(make_batch(model, n_rows, weighted=True))


def test_gradient_wants_a_loss_before_it():
    model = Softmax(2, 3)
    params = model.layout.views(np.zeros(model.layout.size, "f4"))
    grads = model.layout.views(np.zeros(model.layout.size, "f4"))
    with pytest.raises(RuntimeError, match=r"expected a call of loss\(\)"):
        model.gradient(params, grads)
    model.loss(params, GOOD)
    model.predict(params, GOOD.x)
    with pytest.raises(RuntimeError, match=r"since predict\(\)"):
        model.gradient(params, grads)
