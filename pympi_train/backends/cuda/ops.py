"""The hot loops on a GPU, as our own CUDA kernels: the functions of ``numpy.ops``.

Arrays are CuPy's, in float32 or float64 or, where a function says so, in float16 or
bfloat16 (as uint16). Work is queued on the current stream. Returned numbers are a
`device.Pending`, for which ``float()`` waits. Results equal those of the CPU up to
rounding.
"""

from pympi_train.backends.cuda import sparse  # noqa: F401: see layers.dense
from pympi_train.backends.cuda.activations import (
    bias_add,
    bias_gelu,
    bias_relu,
    bias_tanh,
    column_sums,
    gelu_gradient,
    relu_gradient,
    tanh_gradient,
)
from pympi_train.backends.cuda.arrays import (
    ON_DEVICE,
    add,
    copy,
    copy_rows,
    empty,
    empty_block,
    fill,
    from_host,
    matmul,
    narrow,
    numbers,
    row_sum,
    scale,
    square,
    subtract,
    take_rows,
    to_host,
    widen,
    zeros,
)
from pympi_train.backends.cuda.losses import (
    logistic_loss,
    softmax_cross_entropy,
    squared_error,
)
from pympi_train.backends.cuda.updates import (
    Verdict,
    adagrad_update,
    adam_update,
    sgd_update,
    squared_norm,
    weights_square,
)
from pympi_train.backends.cuda.wires import (
    pack_bf16,
    pack_fp16,
    pack_int8,
    unpack_bf16,
    unpack_fp16,
    unpack_int8,
)

__all__ = [
    "ON_DEVICE",
    "Verdict",
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
    "narrow",
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
    "widen",
    "zeros",
]
