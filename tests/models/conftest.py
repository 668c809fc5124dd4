"""Models of every kind in float64, each with a batch that it takes."""

import numpy as np
import pytest

from pympi_train.models.base import Batch
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax

N_FEATURES = 5


def _mlp(hidden, activation="relu", task="classification", n_outputs=3):
    return lambda **dtype: MLP(
        N_FEATURES, hidden, n_outputs, activation=activation, task=task, **dtype
    )


CASES = {
    "linear": lambda **dtype: Linear(N_FEATURES, **dtype),
    "linear-3-targets": lambda **dtype: Linear(N_FEATURES, 3, **dtype),
    "linear-no-intercept": lambda **dtype: Linear(
        N_FEATURES, 2, intercept=False, **dtype
    ),
    "logistic": lambda **dtype: Logistic(N_FEATURES, **dtype),
    "logistic-no-intercept": lambda **dtype: Logistic(
        N_FEATURES, intercept=False, **dtype
    ),
    "softmax": lambda **dtype: Softmax(N_FEATURES, 4, **dtype),
    "softmax-2-classes": lambda **dtype: Softmax(N_FEATURES, 2, **dtype),
    "softmax-no-intercept": lambda **dtype: Softmax(
        N_FEATURES, 3, intercept=False, **dtype
    ),
    "mlp-no-hidden": _mlp([]),
    "mlp-relu-1": _mlp([7]),
    "mlp-relu-2": _mlp([7, 4]),
    "mlp-relu-3": _mlp([7, 1, 6]),
    "mlp-tanh-1": _mlp([3], "tanh"),
    "mlp-tanh-3": _mlp([4, 6, 5], "tanh"),
    "mlp-gelu-2": _mlp([4, 6], "gelu"),
    "mlp-relu-regression": _mlp([7, 4], task="regression"),
    "mlp-tanh-regression": _mlp([6], "tanh", "regression", n_outputs=1),
    "mlp-gelu-regression": _mlp([6, 5, 4], "gelu", "regression", n_outputs=2),
}


def make_batch(model, n_rows, weighted=False, seed=0):
    """Return random rows that ``model`` takes, the same for both dtypes."""
    rng = np.random.default_rng([seed, n_rows])
    dtype = model.layout.dtype
    x = rng.standard_normal((n_rows, model.n_features)).astype(dtype)
    if model.task == "regression":
        y = rng.standard_normal((n_rows, model.n_outputs)).astype(dtype)
    else:
        n_classes = max(model.n_outputs, 2)
        y = rng.integers(0, n_classes, n_rows).astype(model.y_dtype)
    weights = rng.uniform(0.2, 3, n_rows).astype(dtype) if weighted else None
    return Batch(x, y, weights)


@pytest.fixture(params=CASES)
def make_model(request):
    """A function from dtype to model, for each case."""
    return CASES[request.param]


@pytest.fixture
def model(make_model):
    return make_model(dtype="float64")


@pytest.fixture(name="make_batch")
def _make_batch():
    return make_batch
