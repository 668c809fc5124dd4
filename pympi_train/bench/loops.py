"""Benchmark cases: the hot loops of a backend on arrays of a given size."""

from typing import Any, Callable, NamedTuple

import numpy as np

WIDTH = 256  # columns of matrices
CLASSES = 1000
TAKEN = 64  # elements per row of take_rows
PARTS = 4  # rows that row_sum adds up
SCALE_WIDTH = 256  # elements that share a scale on the wire
RANDOM = 2**20  # random numbers drawn, then repeated: drawing takes most of the set-up


class Case(NamedTuple):
    """A hot loop with its arrays.

    Attributes
    ----------
    call : callable
        Runs the loop; takes no arguments.
    n_bytes : int
        Minimum memory traffic in bytes: one for each read or write of an array.
    """

    call: Callable[[], Any]
    n_bytes: int


def loops_of(ops):
    """Return a function by name that makes the Case of each hot loop of a backend.

    Its arguments are the backend's ``ops``, the number of elements and their dtype.
    """
    return {**CASES, **DEVICE_CASES} if ops.ON_DEVICE else CASES


def _wide(dtype):
    """Return the dtype of parameters and labels that go with arrays of ``dtype``."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _flat(ops, size, dtype, value=None):
    """Return an array of random numbers, or filled with ``value``."""
    array = ops.empty(size, dtype)
    if value is not None:
        ops.fill(array, value)
    else:
        some = np.random.default_rng(0).standard_normal(min(size, RANDOM), np.float32)
        ops.from_host(np.resize(some.astype(dtype), size), array)
    return array


def _rows(ops, size, dtype, width=WIDTH):
    k = max(1, size // width)
    return _flat(ops, k * width, dtype).reshape(k, width)


def _numbers(ops, k, most):
    """Return k random integers in [0, most), in the backend's memory."""
    host = np.random.default_rng(0).integers(0, most, k)
    array = ops.empty(k, host.dtype)
    ops.from_host(host, array)
    return array


def copy_of(ops, size, dtype):
    """Return the Case of a plain copy."""
    source, out = (_flat(ops, size, dtype) for _ in range(2))
    return Case(lambda: ops.copy(source, out), 2 * source.nbytes)


def _sgd(ops, size, dtype, momentum=0.0):
    params, velocity = (_flat(ops, size, _wide(dtype), 0.5) for _ in range(2))
    grad = _flat(ops, size, dtype, 0.5)
    how = {"lr": 1e-3, "grad_scale": 0.5, "l2": 0.0, "nesterov": False}
    how["momentum"] = momentum
    n_bytes = (4 if momentum else 2) * params.nbytes + grad.nbytes
    return Case(lambda: ops.sgd_update(params, grad, velocity, **how), n_bytes)


def _momentum(ops, size, dtype):
    return _sgd(ops, size, dtype, 0.9)


def _adam(ops, size, dtype):
    params, m, v = (_flat(ops, size, _wide(dtype), x) for x in (0.5, 0.1, 0.1))
    grad = _flat(ops, size, dtype, 0.5)
    how = {"step": 9, "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    how |= {"grad_scale": 0.5, "l2": 0.0, "decay": 0.0}
    n_bytes = 6 * params.nbytes + grad.nbytes
    return Case(lambda: ops.adam_update(params, grad, m, v, **how), n_bytes)


def _adagrad(ops, size, dtype):
    params, squares = (_flat(ops, size, _wide(dtype), x) for x in (0.5, 0.1))
    grad = _flat(ops, size, dtype, 0.5)
    how = {"lr": 1e-3, "eps": 1e-8, "grad_scale": 0.5, "l2": 0.0}
    n_bytes = 4 * params.nbytes + grad.nbytes
    return Case(lambda: ops.adagrad_update(params, grad, squares, **how), n_bytes)


def _norm(ops, size, dtype):
    grad, params = _flat(ops, size, dtype), _flat(ops, size, _wide(dtype))
    how, n_bytes = {"grad_scale": 0.5, "l2": 0.1}, grad.nbytes + params.nbytes
    return Case(lambda: ops.squared_norm(grad, params, **how), n_bytes)


def _softmax(ops, size, dtype):
    z = _rows(ops, size, dtype, CLASSES)
    y = _numbers(ops, len(z), CLASSES)
    return Case(lambda: ops.softmax_cross_entropy(z, y, None), 2 * z.nbytes)


def _logistic(ops, size, dtype):
    z, y = _rows(ops, size, dtype, 1), _flat(ops, size, _wide(dtype), 1.0)
    return Case(lambda: ops.logistic_loss(z, y, None), 2 * z.nbytes + y.nbytes)


def _squares(ops, size, dtype):
    h, y = _rows(ops, size, dtype), _rows(ops, size, _wide(dtype))
    return Case(lambda: ops.squared_error(h, y, None), 2 * h.nbytes + y.nbytes)


def _bias(name, n_arrays=2):
    def make(ops, size, dtype):
        z, b = _rows(ops, size, dtype), _flat(ops, WIDTH, dtype, 0.0)
        more = [_rows(ops, size, dtype)] if n_arrays > 2 else []
        return Case(lambda: getattr(ops, name)(z, b, *more), n_arrays * z.nbytes)

    return make


def _slope(name):
    def make(ops, size, dtype):
        delta, out = (_rows(ops, size, dtype) for _ in range(2))
        return Case(lambda: getattr(ops, name)(delta, out), 3 * delta.nbytes)

    return make


def _column_sums(ops, size, dtype):
    delta, out = _rows(ops, size, dtype), _flat(ops, WIDTH, dtype)
    return Case(lambda: ops.column_sums(delta, out), delta.nbytes)


def _take_rows(ops, size, dtype):
    source = _rows(ops, size, dtype, TAKEN)
    out, rows = _rows(ops, size, dtype, TAKEN), _numbers(ops, len(source), len(source))
    return Case(
        lambda: ops.take_rows(source, rows, out), 2 * source.nbytes + rows.nbytes
    )


def _add(ops, size, dtype):
    x, y = _flat(ops, size, dtype, 0.5), _flat(ops, size, _wide(dtype), 0.5)
    return Case(lambda: ops.add(x, y), x.nbytes + 2 * y.nbytes)


def _scale(ops, size, dtype):
    x = _flat(ops, size, dtype, 0.5)
    return Case(lambda: ops.scale(x, 1.0), 2 * x.nbytes)


def _row_sum(ops, size, dtype):
    n = max(1, size // PARTS)
    parts = _flat(ops, PARTS * n, dtype).reshape(PARTS, n)
    out = _flat(ops, n, dtype)
    return Case(lambda: ops.row_sum(parts, out), parts.nbytes + out.nbytes)


def _codes(ops, size, kind):
    n_scales = 0 if kind == "bf16" else -(-size // SCALE_WIDTH)
    codes = ops.zeros(size, np.dtype(np.int8 if kind == "int8" else np.uint16))
    return codes, _flat(ops, n_scales, np.dtype(np.float32), 1.0)


def _pack(kind):
    def make(ops, size, dtype):
        values, residual = _flat(ops, size, dtype), _flat(ops, size, dtype, 0.0)
        codes, scales = _codes(ops, size, kind)
        n_bytes = 3 * values.nbytes + codes.nbytes + scales.nbytes
        pack = getattr(ops, f"pack_{kind}")
        return Case(lambda: pack(values, residual, codes, scales), n_bytes)

    return make


def _unpack(kind):
    def make(ops, size, dtype):
        out, (codes, scales) = _flat(ops, size, dtype), _codes(ops, size, kind)
        n_bytes = 2 * out.nbytes + codes.nbytes + scales.nbytes
        unpack = getattr(ops, f"unpack_{kind}")
        return Case(lambda: unpack(codes, scales, out, True), n_bytes)

    return make


def _converted(name, source_type, out_type):
    def make(ops, size, dtype):
        source = _flat(ops, size, np.dtype(source_type))
        out = ops.empty(size, np.dtype(out_type))
        convert = getattr(ops, name)
        return Case(lambda: convert(source, out), source.nbytes + out.nbytes)

    return make


def _fill(ops, size, dtype):
    out = ops.empty(size, dtype)
    return Case(lambda: ops.fill(out, 1.0), out.nbytes)


def _in_halves(make):
    return lambda ops, size, dtype: make(ops, size, np.dtype(np.float16))


CASES = {
    "sgd_update": _sgd,
    "sgd_update, momentum": _momentum,
    "adam_update": _adam,
    "adagrad_update": _adagrad,
    "squared_norm": _norm,
    "softmax_cross_entropy": _softmax,
    "logistic_loss": _logistic,
    "squared_error": _squares,
    "bias_add": _bias("bias_add"),
    "bias_relu": _bias("bias_relu"),
    "bias_tanh": _bias("bias_tanh"),
    "bias_gelu": _bias("bias_gelu", 3),
    "relu_gradient": _slope("relu_gradient"),
    "tanh_gradient": _slope("tanh_gradient"),
    "gelu_gradient": _slope("gelu_gradient"),
    "column_sums": _column_sums,
    "take_rows": _take_rows,
    "add": _add,
    "fill": _fill,
    "scale": _scale,
    "row_sum": _row_sum,
    **{f"pack_{kind}": _pack(kind) for kind in ("bf16", "fp16", "int8")},
    **{f"unpack_{kind}": _unpack(kind) for kind in ("bf16", "fp16", "int8")},
}
HALVES = [name for name in CASES if "pack" not in name and name != "fill"]
DEVICE_CASES = {
    "narrow": _converted("narrow", np.float32, np.float16),
    "widen": _converted("widen", np.float16, np.float32),
    **{f"{name}, float16": _in_halves(CASES[name]) for name in HALVES},
}
