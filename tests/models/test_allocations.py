"""After the first step, nothing of the size of a batch or a layer is allocated."""

import tracemalloc

import numpy as np
import pytest

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import empty_block
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax

# NumPy's ufuncs may borrow a buffer of 8192 elements, whatever the size of the arrays.
# Those of layers and batches take at least 1 MB here, but for those of a single column.
BOUND_BYTES = 150_000

MODELS = {
    "linear": lambda: Linear(600, 500),
    "logistic": lambda: Logistic(300_000),
    "softmax": lambda: Softmax(600, 500),
    "relu": lambda: MLP(600, [500, 600], 500),
    "tanh": lambda: MLP(600, [500, 600], 500, activation="tanh"),
    "gelu": lambda: MLP(600, [500, 600], 500, activation="gelu", task="regression"),
}
ROWS = {"logistic": (9, 8, 5, 1, 0, 9)}


def check_steps(name, ops, weighted, make_batch):
    model, rows = MODELS[name](), ROWS.get(name, (601, 600, 577, 1, 0, 601))
    model.use(ops)
    batches = [make_batch(model, k, weighted) for k in rows]
    params, grads = empty_block(model.layout), empty_block(model.layout)
    views, grad_views = model.layout.views(params), model.layout.views(grads)
    model.init(views, 0)
    for batch in batches:  # workspaces grow, scratch is made, loops are compiled
        model.loss(views, batch)
        model.gradient(views, grad_views)

    tracemalloc.start()
    try:
        for batch in batches:
            model.loss(views, batch)
            model.gradient(views, grad_views)
            model.predict(views, batch.x)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < BOUND_BYTES


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_allocate_nothing_large(name, weighted, make_batch):
    check_steps(name, numpy_ops, weighted, make_batch)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_compiled_steps_allocate_nothing_large(name, weighted, make_batch, numba_ops):
    check_steps(name, numba_ops, weighted, make_batch)


def test_the_measure_sees_a_layer():
    layer = np.zeros((600, 500), "f4")
    tracemalloc.start()
    try:
        layer + layer
        assert tracemalloc.get_traced_memory()[1] > BOUND_BYTES
    finally:
        tracemalloc.stop()
