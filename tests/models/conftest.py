"""Models of every kind in float64, each with a batch that it takes."""

import numpy as np
import pytest

from pympi_train.data.batch import Batch
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax

N_FEATURES = 5


def _mlp(hidden, activation="relu", task="classification", n_outputs=3):
    return lambda **options: MLP(
        N_FEATURES, hidden, n_outputs, activation=activation, task=task, **options
    )


CASES = {
    "linear": lambda **options: Linear(N_FEATURES, **options),
    "linear-3-targets": lambda **options: Linear(N_FEATURES, 3, **options),
    "linear-no-intercept": lambda **options: Linear(
        N_FEATURES, 2, intercept=False, **options
    ),
    "logistic": lambda **options: Logistic(N_FEATURES, **options),
    "logistic-no-intercept": lambda **options: Logistic(
        N_FEATURES, intercept=False, **options
    ),
    "softmax": lambda **options: Softmax(N_FEATURES, 4, **options),
    "softmax-2-classes": lambda **options: Softmax(N_FEATURES, 2, **options),
    "softmax-no-intercept": lambda **options: Softmax(
        N_FEATURES, 3, intercept=False, **options
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
    """A function from dtype and ops to model, for each case."""
    return CASES[request.param]


@pytest.fixture
def model(make_model):
    return make_model(dtype="float64")


@pytest.fixture
def numba_ops():
    pytest.importorskip("numba")
    from pympi_train.backends.numba import ops as numba_ops

    return numba_ops


@pytest.fixture(name="make_batch")
def _make_batch():
    return make_batch
