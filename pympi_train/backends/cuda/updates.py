"""Updates of flat blocks on the device, one launch each: ``kernels/updates.cu``."""

from functools import cache

import numpy as np

from pympi_train.backends.cuda.device import Pending, cp, device, empty
from pympi_train.backends.cuda.launch import (
    MOST_PARTIALS,
    NULL,
    blocks,
    launch,
    require_flat,
    wide,
)
from pympi_train.backends.scalars import adam_scalars


def sgd_update(
    params,
    grad,
    velocity,
    *,
    lr,
    grad_scale,
    l2,
    momentum,
    nesterov,
    runs=None,
    coupled=0.0,
    factor=None,
    copy=None,
):
    """Queue an update by SGD; see ``numpy.ops``.

    Moves 12 bytes per float32 parameter, 20 with momentum.

    Parameters
    ----------
    grad : device array, shape (n,)
        Of the dtype of ``params``, or float16 or bfloat16.
    coupled : float
        As ``l2``, but not scaled by ``factor``.
    factor : device array, shape (1,), float64, optional
        From `Verdict`: scales ``grad_scale`` and ``l2``; NaN skips the update.
    copy : device array, shape (n,), the dtype of ``grad``, optional
        Receives the rounded parameters; for gradients of 2 bytes only.
    """
    require_flat(params=params, grad=grad)
    scalars = _typed(params, grad_scale, l2, coupled)
    tail = (*scalars, _or_null(factor), *_table(runs))
    n, grid = np.int64(params.size), blocks(params.size, grad.dtype)
    head = (params, grad)
    if momentum == 0.0:
        args = (*head, _or_null(copy), n, *_typed(params, lr), *tail)
        launch("updates", "sgd", grad.dtype, grid, args)
    else:
        how = (*_typed(params, lr, momentum), np.int32(nesterov))
        args = (*head, velocity, _or_null(copy), n, *how, *tail)
        launch("updates", "momentum", grad.dtype, grid, args)


def adam_update(
    params,
    grad,
    m,
    v,
    *,
    step,
    lr,
    beta1,
    beta2,
    eps,
    grad_scale,
    l2,
    decay,
    runs=None,
    coupled=0.0,
    factor=None,
    copy=None,
):
    """Queue an update by Adam; see ``numpy.ops`` and `sgd_update`.

    Moves 28 bytes per float32 parameter, 26 with gradients of 2 bytes, and 2 more for
    the copy.
    """
    require_flat(params=params, grad=grad, m=m, v=v)
    scalars = adam_scalars(step, lr, beta1, beta2, eps, decay)
    args = (
        *(params, grad, m, v, _or_null(copy), np.int64(params.size)),
        *_typed(params, *scalars, grad_scale, l2, coupled),
        *(_or_null(factor), *_table(runs)),
    )
    launch("updates", "adam", grad.dtype, blocks(params.size, grad.dtype), args)


def adagrad_update(
    params,
    grad,
    squares,
    *,
    lr,
    eps,
    grad_scale,
    l2,
    runs=None,
    coupled=0.0,
    factor=None,
    copy=None,
):
    """Queue an update by AdaGrad; see ``numpy.ops`` and `sgd_update`.

    Moves 20 bytes per float32 parameter, 18 with gradients of 2 bytes, and 2 more for
    the copy.
    """
    require_flat(params=params, grad=grad, squares=squares)
    args = (
        *(params, grad, squares, _or_null(copy), np.int64(params.size)),
        *_typed(params, lr, eps, grad_scale, l2, coupled),
        *(_or_null(factor), *_table(runs)),
    )
    launch("updates", "adagrad", grad.dtype, blocks(params.size, grad.dtype), args)


def squared_norm(grad, params, *, grad_scale, l2, runs=None):
    """Return |grad_scale grad + l2 params|^2 as a Pending; see ``numpy.ops``."""
    scalars = grad_scale, l2, grad_scale
    return Pending(_norm(grad, params, scalars, runs, np.inf, 0.0, _found())[:1])


def weights_square(params, runs):
    """Return |W|^2 over the weights of ``params`` as a Pending; see ``numpy.ops``."""
    scalars = 1.0, 0.0, 0.0
    return Pending(_norm(params, None, scalars, runs, np.inf, 0.0, _found())[:1])


class Verdict:
    """Whether a summed gradient is usable, determined and applied on the device.

    The update reads it there, so that the host need not wait between the two.

    Attributes
    ----------
    factor : device array, shape (1,), float64
        For the update: the clipping factor, or NaN if the gradient is not usable.
    """

    def __init__(self):
        self._found, self._pending = cp.zeros(2, np.float64), None
        self.factor = self._found[1:]

    def judge(self, grad, params, *, grad_scale, l2, runs, limit, clip_norm=None):
        """Queue the norm of g = grad_scale grad + l2 params, and the update's factor.

        Parameters
        ----------
        limit : float
            Maximum |g|^2 of a usable gradient.
        clip_norm : float, optional
            Maximum |g| after clipping.
        """
        scalars = grad_scale, l2, grad_scale
        _norm(grad, params, scalars, runs, limit, clip_norm or 0.0, self._found)
        self._pending = Pending(self._found)

    def norm_and_use(self):
        """Wait for (|g|, whether g was usable) and return them.

        Returns None if ``judge`` was not called since the last call.
        """
        if self._pending is None:
            return None
        (square, factor), self._pending = self._pending.values(), None
        return square**0.5, factor == factor


def _norm(grad, params, scalars, runs, limit, clip, found):
    """Queue ``norm_partials`` and ``norm_finish``; return ``found``."""
    require_flat(grad=grad)
    partials = _partials()
    # The same number of blocks on every GPU, so that sums have the same bits on all.
    n = blocks(grad.size, grad.dtype, MOST_PARTIALS)
    head = (grad, NULL if params is None else params, np.int64(grad.size))
    typed = map(wide(grad.dtype).type, scalars)
    args = (*head, *typed, *_table(runs), partials)
    launch("updates", "norm", grad.dtype, n, args)
    last = (partials, np.int32(n), np.float64(limit), np.float64(clip), found)
    launch("updates", "norm_finish", grad.dtype, 1, last, typed=False)
    return found


def _typed(params, *values):
    return tuple(map(params.dtype.type, values))


def _or_null(array):
    return NULL if array is None else array


def _table(runs):
    """Return the kernels' two arguments for ``runs``."""
    if runs is None:
        return NULL, np.int32(1)
    return _ends(runs, device().index), np.int32(runs.weights_first)


@cache
def _ends(runs, index):
    return cp.asarray(np.array(runs.ends or (0,), np.int64))


@cache
def _buffers(index):
    return empty(MOST_PARTIALS, np.float64), empty(2, np.float64)


def _partials():
    """Return memory for the sums of blocks: one kernel fills it, the next reads it."""
    return _buffers(device().index)[0]


def _found():
    return _buffers(device().index)[1]
