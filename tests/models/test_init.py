"""Starting points: where the models begin, the same on every rank and in each dtype."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.flat.memory import empty_block
from pympi_train.models import mlp
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax
from pympi_train.random import INIT, uniform


def initial(model, seed):
    params = empty_block(model.layout)
    params[:] = np.nan
    named = model.layout.named(params)
    model.init(list(named.values()), seed)
    return named


@pytest.mark.parametrize(
    "model",
    [Linear(3, 2), Logistic(3), Softmax(3, 4, intercept=False)],
    ids=lambda model: type(model).__name__,
)
def test_linear_models_start_at_zero(model):
    for view in initial(model, seed=1).values():
        assert (view == 0).all()


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, math.sqrt(6 / 100)),
        ({"activation": "gelu"}, math.sqrt(6 / 100)),
        ({"activation": "tanh"}, math.sqrt(6 / 100)),
        ({"init": "he"}, math.sqrt(6 / 40)),
        ({"init": "he", "activation": "tanh"}, math.sqrt(6 / 40)),
    ],
)
def test_bounds(options, bound):
    named = initial(MLP(40, [60], 30, **options), seed=1)
    first, last = named["layers.0.weight"], named["layers.1.weight"]
    for weight, limit in ((first, bound), (last, math.sqrt(6 / 90))):
        assert np.abs(weight).max() <= limit * (1 + 1e-6)
        assert np.abs(weight).max() > 0.99 * limit
        assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)
        assert abs(weight.mean()) < 0.1 * limit
    assert not named["layers.0.bias"].any()
    assert not named["layers.1.bias"].any()


def test_takes_the_words_of_the_stream_in_model_order(monkeypatch):
    monkeypatch.setattr(mlp, "INIT_CHUNK", 7)  # several chunks a tensor
    model = MLP(3, [5, 4], 2, init="he", dtype="float64")
    named = initial(model, seed=11)
    numbers = uniform(11, INIT, 3 * 5 + 5 * 4 + 4 * 2)
    for i, (start, stop, bound) in enumerate(
        [(0, 15, 6 / 3), (15, 35, 6 / 5), (35, 43, 6 / (4 + 2))]
    ):
        expected = math.sqrt(bound) * (2 * numbers[start:stop] - 1)
        assert_allclose(named[f"layers.{i}.weight"].ravel(), expected, rtol=1e-13)


def test_dtypes_agree_to_rounding():
    double = initial(MLP(30, [20, 10], 5, dtype="float64"), seed=4)
    single = initial(MLP(30, [20, 10], 5, dtype="float32"), seed=4)
    for name, view in double.items():
        assert (single[name] == view.astype(np.float32)).all()


def test_seeds_differ():
    first, second = (initial(MLP(5, [4], 3), seed) for seed in (0, 1))
    assert not (first["layers.0.weight"] == second["layers.0.weight"]).any()
