"""After the first step, nothing of the size of a batch or a layer is allocated."""

import tracemalloc

import numpy as np
import pytest

from pympi_train.backends.memory import empty_block
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax

BOUND_BYTES = 16_000  # an eighth of the smallest array that a layer or batch has here

MODELS = {
    "linear": Linear(600, 80),
    "logistic": Logistic(40_000),
    "softmax": Softmax(600, 80),
    "mlp-relu": MLP(300, [400, 300], 120),
    "mlp-tanh": MLP(300, [400, 300], 120, activation="tanh"),
    "mlp-gelu": MLP(300, [400, 300], 120, activation="gelu", task="regression"),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_steps_allocate_nothing_large(name, weighted, make_batch):
    model = MODELS[name]
    batches = [make_batch(model, k, weighted) for k in (401, 400, 377, 1, 0, 401)]
    params, grads = empty_block(model.layout), empty_block(model.layout)
    views, grad_views = model.layout.views(params), model.layout.views(grads)
    model.init(views, 0)
    for batch in batches:  # workspaces grow, scratch is made
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


def test_the_measure_sees_a_layer():
    layer = np.zeros((600, 80), "f4")
    tracemalloc.start()
    try:
        layer + layer
        assert tracemalloc.get_traced_memory()[1] > BOUND_BYTES
    finally:
        tracemalloc.stop()
