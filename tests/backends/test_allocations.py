"""No operation of the CPU backends allocates memory of the size of its arrays."""

import tracemalloc

import numpy as np
import pytest

from pympi_train.flat.runs import Runs

LIMIT_BYTES = 300_000
N = 1_000_000  # 4 MB of float32
UPDATE = dict(grad_scale=0.5, l2=0.1)
ADAM = dict(step=2, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.1)
ADAGRAD = dict(lr=1e-3, eps=1e-8)
SGD = dict(lr=1e-3, momentum=0.9, nesterov=True)


def flat():
    return np.ones(N, np.float32)


def rows(width=1000):
    return np.ones((N // width, width), np.float32)


def bias():
    return np.ones(1000, np.float32)


def coded(code, width=256):
    n_scales = -(-N // width) if width else 0
    return [np.zeros(N, code), np.ones(n_scales, np.float32)]


def labels(k):
    return np.zeros(k, np.intp)


CASES = {
    "sgd_update": lambda: ([flat(), flat(), flat()], SGD | UPDATE),
    "adam_update": lambda: ([flat(), flat(), flat(), flat()], ADAM | UPDATE),
    "adagrad_update": lambda: ([flat(), flat(), flat()], ADAGRAD | UPDATE),
    "squared_norm": lambda: ([flat(), flat()], UPDATE),
    "softmax_cross_entropy": lambda: ([rows(), labels(1000), bias()], {}),
    "logistic_loss": lambda: ([rows(1), flat(), flat()], {}),
    "squared_error": lambda: ([rows(), rows(), bias()], {}),
    "bias_add": lambda: ([rows(), bias()], {}),
    "bias_relu": lambda: ([rows(), bias()], {}),
    "bias_tanh": lambda: ([rows(), bias()], {}),
    "bias_gelu": lambda: ([rows(), bias(), rows()], {}),
    "relu_gradient": lambda: ([rows(), rows()], {}),
    "tanh_gradient": lambda: ([rows(), rows()], {}),
    "gelu_gradient": lambda: ([rows(), rows()], {}),
    "column_sums": lambda: ([rows(), bias()], {}),
    "pack_bf16": lambda: ([flat(), flat(), *coded("u2", 0)], {}),
    "pack_fp16": lambda: ([flat(), flat(), *coded("u2")], {}),
    "pack_int8": lambda: ([flat(), flat(), *coded("i1")], {}),
    "unpack_bf16": lambda: ([*coded("u2", 0), flat(), True], {}),
    "unpack_fp16": lambda: ([*coded("u2"), flat(), True], {}),
    "unpack_int8": lambda: ([*coded("i1"), flat(), True], {}),
    "take_rows": lambda: ([rows(), np.arange(1000)[::-1].copy(), rows()], {}),
    "weights_square": lambda: ([flat(), Runs((8, N), False)], {}),
    "matmul": lambda: ([rows(), rows().T, rows()], {}),
    "row_sum": lambda: ([rows(), bias()], {}),
    "scale": lambda: ([flat(), 0.5], {}),
    "add": lambda: ([flat(), flat()], {}),
    "subtract": lambda: ([flat(), flat(), flat()], {}),
    "copy": lambda: ([flat(), flat()], {}),
    "copy_rows": lambda: ([rows()[:, 1:], rows()[:, 1:].copy()], {}),
    "fill": lambda: ([flat(), 0.5], {}),
    "square": lambda: ([flat()], {}),
    "numbers": lambda: ([flat()], {}),
    "to_host": lambda: ([flat()], {}),
    "from_host": lambda: ([flat(), flat()], {}),
}
MAKERS = {"empty", "zeros", "empty_block"}


def peak_bytes(call):
    call()  # compiles, and allocates scratch memory
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_operation_is_here(cpu_ops):
    assert set(CASES) | MAKERS | {"ON_DEVICE"} == set(cpu_ops.__all__)


@pytest.mark.parametrize("name", CASES)
def test_allocates_little(cpu_ops, name):
    arrays, options = CASES[name]()
    used = peak_bytes(lambda: getattr(cpu_ops, name)(*arrays, **options))
    assert used < LIMIT_BYTES


@pytest.mark.parametrize("classes", [2, 10])
def test_softmax_over_few_classes_allocates_little(cpu_ops, classes):
    z, y = np.ones((100_000, classes), np.float32), labels(100_000)
    used = peak_bytes(lambda: cpu_ops.softmax_cross_entropy(z, y, None))
    assert used < 2 * LIMIT_BYTES


def test_a_temporary_is_seen():
    a = flat()
    assert peak_bytes(lambda: a + 1) > LIMIT_BYTES
