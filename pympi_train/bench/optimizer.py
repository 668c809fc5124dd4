"""Bytes per second of an optimizer's update, compared with memory bandwidth."""

import statistics
import time

import numpy as np

from pympi_train.backends.select import present, select
from pympi_train.bench.stream import Triad
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Layout, Tensor, empty_block
from pympi_train.optim.adam import Adam, AdamW
from pympi_train.optim.sgd import GD, SGD

# The optimizer, and the elements moved per parameter: the gradient is read; the
# parameter and each element of its state are read and written.
OPTIMIZERS = {
    "gd": (lambda: GD(1e-3), 3),
    "sgd": (lambda: SGD(1e-3, momentum=0.9), 5),
    "adam": (lambda: Adam(1e-3), 7),
    "adamw": (lambda: AdamW(1e-3), 7),
}
WARM_UP = 2  # untimed calls: compilation, first touch of memory


def measure(name, size, dtype="float32", repeats=20):
    r"""Time the update of ``size`` parameters on every available CPU backend.

    Parameters
    ----------
    name : {"gd", "sgd", "adam", "adamw"}
        sgd has momentum 0.9, adamw its default weight decay.
    size : int
        Number of parameters :math:`n`, at least 1.
    dtype : {"float32", "float64"}
        Dtype of the parameters.
    repeats : int
        Number of timed updates per backend.

    Returns
    -------
    dict
        ``optimizer``, ``size``, ``dtype``, ``bytes`` moved by an update, and
        ``backends``: by name, ``median_s``, ``bytes_per_s`` and
        ``stream_bytes_per_s``, the rate of a triad over arrays of the same size. The
        triad is timed after each update, so that other load affects both. All
        backends have the rate of the fastest triad.

    Raises
    ------
    ConfigError
        If the optimizer or the dtype is another one, or a number is below 1.

    Notes
    -----
    With :math:`s` bytes per element, an update moves :math:`e\,s\,n` bytes: :math:`e`
    = 3 for gd, 5 for sgd, 7 for adam and adamw. If the arrays fit into a cache, the
    rates are those of the cache. An update may be faster than the triad, because it
    writes only what it has read; the write-allocate reads of the triad are not counted.
    """
    _check(name, size, dtype, repeats)
    make, elements = OPTIMIZERS[name]
    layout = Layout([Tensor("w", (size,))], dtype)
    n_bytes = elements * layout.dtype.itemsize * size
    backends, stream = {}, 0.0
    for backend in present():
        triad = Triad(size, layout.dtype, backend)
        update = _update(make(), layout, select(backend).ops)
        update_s, triad_s = _in_turn((update, triad), repeats)
        backends[backend] = {
            "median_s": update_s,
            "bytes_per_s": n_bytes / update_s,
        }
        stream = max(stream, triad.n_bytes / triad_s)
    for found in backends.values():
        found["stream_bytes_per_s"] = stream
    return {
        "optimizer": name,
        "size": size,
        "dtype": layout.dtype.name,
        "bytes": n_bytes,
        "backends": backends,
    }


def _check(name, size, dtype, repeats):
    for what, got, choices in (
        ("optimizer", name, tuple(OPTIMIZERS)),
        ("dtype", dtype, ("float32", "float64")),
    ):
        if got not in choices:
            known = ", ".join(choices)
            raise ConfigError(f"{what} must be one of {known}; got {got!r}")
    for what, number in (("size", size), ("repeats", repeats)):
        if number < 1:
            raise ConfigError(f"{what} must be at least 1, got {number}")


def _update(optimizer, layout, ops):
    """Return a function that updates a block of random parameters once."""
    optimizer.allocate(layout, ops)
    params, grad = empty_block(layout), empty_block(layout)
    rng = np.random.default_rng(0)
    for block in (params, grad):
        block[:] = rng.standard_normal(block.size, dtype=layout.dtype)

    def update():
        optimizer.update(params, grad, lr=optimizer.lr, grad_scale=0.5, l2=0.0)

    return update


def _in_turn(calls, repeats):
    """Return the median seconds of each of ``calls``, which take turns."""
    seconds = [[] for _ in calls]
    for _ in range(WARM_UP + repeats):
        for call, taken in zip(calls, seconds):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[WARM_UP:]) for taken in seconds]
