from types import SimpleNamespace

import numpy as np
import pytest

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import Layout, Tensor, empty_block

# Odd sizes, so that padding follows each; runs of weights and of biases.
TENSORS = (
    Tensor("a", (3, 3)),
    Tensor("a.bias", (3,), is_weight=False),
    Tensor("scale", (), is_weight=False),
    Tensor("b", (3, 5)),
    Tensor("c", (1,)),
)


class CountingOps:
    """`numpy.ops`, with the names of the functions called."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(numpy_ops, name)


@pytest.fixture
def make_blocks():
    """``make_blocks(dtype, seed)``: a layout, random blocks and masks."""

    def make(dtype="float64", seed=0):
        layout = Layout(TENSORS, dtype)
        rng = np.random.default_rng(seed)
        blocks = SimpleNamespace(layout=layout, ops=CountingOps())
        for name in ("params", "grad"):
            block = empty_block(layout)
            for view in layout.views(block):
                view[...] = rng.standard_normal(view.shape)
            setattr(blocks, name, block)
        blocks.is_tensor = empty_block(layout) > 0
        blocks.is_weight = blocks.is_tensor.copy()
        for tensor, start in zip(layout.tensors, layout.offsets):
            part = slice(start, start + tensor.size)
            blocks.is_tensor[part] = True
            blocks.is_weight[part] = tensor.is_weight
        return blocks

    return make
