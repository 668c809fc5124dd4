"""Hot loops on the CPU with NumPy. Other backends have the same functions.

Arrays are C-contiguous and of one dtype, float32 or float64; scalars are Python
floats, rounded to that dtype once. Everything works in place.
"""

from pympi_train.backends.numpy_activations import (
    bias_add,
    bias_gelu,
    bias_relu,
    bias_tanh,
    column_sums,
    gelu_gradient,
    relu_gradient,
    take_rows,
    tanh_gradient,
)
from pympi_train.backends.numpy_losses import (
    logistic_loss,
    softmax_cross_entropy,
    squared_error,
)
from pympi_train.backends.numpy_updates import (
    adam_update,
    sgd_update,
    squared_norm,
)
from pympi_train.backends.numpy_wires import (
    pack_bf16,
    pack_fp16,
    pack_int8,
    unpack_bf16,
    unpack_fp16,
    unpack_int8,
)

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
