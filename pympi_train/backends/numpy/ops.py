"""The hot loops on a CPU with NumPy; every backend has the same functions.

Arrays are C-contiguous and of one dtype, float32 or float64. Scalars are Python floats,
rounded once to that dtype. All functions work in place. ``from_host`` and ``to_host``
copy between NumPy arrays and those of a backend, which may lie in GPU memory.
"""

from pympi_train.backends.numpy import sparse  # noqa: F401: see layers.dense
from pympi_train.backends.numpy.activations import (
    bias_add,
    bias_gelu,
    bias_relu,
    bias_tanh,
    column_sums,
    gelu_gradient,
    relu_gradient,
    tanh_gradient,
)
from pympi_train.backends.numpy.arrays import (
    ON_DEVICE,
    add,
    copy,
    copy_rows,
    empty,
    empty_block,
    fill,
    from_host,
    matmul,
    numbers,
    row_sum,
    scale,
    square,
    subtract,
    take_rows,
    to_host,
    zeros,
)
from pympi_train.backends.numpy.losses import (
    logistic_loss,
    softmax_cross_entropy,
    squared_error,
)
from pympi_train.backends.numpy.updates import (
    adagrad_update,
    adam_update,
    sgd_update,
    squared_norm,
    weights_square,
)
from pympi_train.backends.numpy.wires import (
    pack_bf16,
    pack_fp16,
    pack_int8,
    unpack_bf16,
    unpack_fp16,
    unpack_int8,
)

__all__ = [
    "ON_DEVICE",
    "adagrad_update",
    "adam_update",
    "add",
    "bias_add",
    "bias_gelu",
    "bias_relu",
    "bias_tanh",
    "column_sums",
    "copy",
    "copy_rows",
    "empty",
    "empty_block",
    "fill",
    "from_host",
    "gelu_gradient",
    "logistic_loss",
    "matmul",
    "numbers",
    "pack_bf16",
    "pack_fp16",
    "pack_int8",
    "relu_gradient",
    "row_sum",
    "scale",
    "sgd_update",
    "softmax_cross_entropy",
    "square",
    "squared_error",
    "squared_norm",
    "subtract",
    "take_rows",
    "tanh_gradient",
    "to_host",
    "unpack_bf16",
    "unpack_fp16",
    "unpack_int8",
    "weights_square",
    "zeros",
]
