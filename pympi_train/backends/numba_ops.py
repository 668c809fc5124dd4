"""Hot loops on the CPU, compiled by Numba: the functions of ``numpy_ops``.

Elementwise results are the same to the bit; sums agree to rounding.
"""

from pympi_train.backends.numba_activations import (
    bias_add,
    bias_gelu,
    bias_relu,
    bias_tanh,
    column_sums,
    gelu_gradient,
    relu_gradient,
    tanh_gradient,
)
from pympi_train.backends.numba_losses import (
    logistic_loss,
    softmax_cross_entropy,
    squared_error,
)
from pympi_train.backends.numba_updates import (
    adam_update,
    sgd_update,
    squared_norm,
)
from pympi_train.backends.numba_wires import (
    pack_bf16,
    pack_fp16,
    pack_int8,
    unpack_bf16,
    unpack_fp16,
    unpack_int8,
)
from pympi_train.backends.numpy_activations import take_rows

__all__ = [
    "adam_update",
    "bias_add",
    "bias_gelu",
    "bias_relu",
    "bias_tanh",
    "column_sums",
    "gelu_gradient",
    "logistic_loss",
    "pack_bf16",
    "pack_fp16",
    "pack_int8",
    "relu_gradient",
    "sgd_update",
    "softmax_cross_entropy",
    "squared_error",
    "squared_norm",
    "take_rows",
    "tanh_gradient",
    "unpack_bf16",
    "unpack_fp16",
    "unpack_int8",
]
