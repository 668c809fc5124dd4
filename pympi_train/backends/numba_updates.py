"""Updates of flat blocks, compiled: one pass over the memory each."""

import numpy as np

from pympi_train.backends.numba_jit import helper, kernel
from pympi_train.backends.scalars import adam_scalars
from pympi_train.backends.threads import over_chunks

NORM_BLOCK = 65_536  # elements; a partial sum each, whatever the number of threads
LANES = 16  # sums kept side by side: one alone waits for the addition before it


def sgd_update(
    params, grad, velocity, *, lr, grad_scale, l2, momentum, nesterov
):
    """SGD in place; see ``numpy_ops.sgd_update``. One pass, 12 or 20 bytes of float32."""
    if momentum == 0.0:
        over_chunks(_sgd, (params, grad), (lr, grad_scale, l2))
    else:
        over_chunks(
            _momentum,
            (params, grad, velocity),
            (lr, grad_scale, l2, momentum, bool(nesterov)),
        )


def adam_update(
    params, grad, m, v, *, step, lr, beta1, beta2, eps, grad_scale, l2, decay
):
    """Adam in place; see ``numpy_ops.adam_update``. One pass, 28 bytes of float32."""
    scalars = adam_scalars(step, lr, beta1, beta2, eps, decay)
    over_chunks(_adam, (params, grad, m, v), (grad_scale, l2, *scalars))


def squared_norm(grad, params, *, grad_scale, l2):
    """Return |grad_scale grad + l2 params|^2; see ``numpy_ops.squared_norm``."""
    partial = np.empty(-(-grad.size // NORM_BLOCK))
    _norm_blocks(grad, params, grad_scale, l2, partial)
    return float(np.add.reduce(partial))


@kernel
def _sgd(params, grad, lr, grad_scale, l2):
    T = params.dtype.type
    rate, scale, ridge = T(lr), T(grad_scale), T(l2)
    if l2 == 0.0:
        for i in range(params.size):
            params[i] -= rate * (scale * grad[i])
    else:
        for i in range(params.size):
            params[i] -= rate * (scale * grad[i] + ridge * params[i])


@kernel
def _adam(params, grad, m, v, grad_scale, l2, b1, c1, b2, c2, rate, floor, keep):
    T = params.dtype.type
    scale, ridge = T(grad_scale), T(l2)
    fixed = T(b1), T(c1), T(b2), T(c2), T(rate), T(floor), T(keep)
    if l2 == 0.0:
        for i in range(params.size):
            g = scale * grad[i]
            params[i], m[i], v[i] = _adam_element(params[i], g, m[i], v[i], fixed)
    else:
        for i in range(params.size):
            g = scale * grad[i] + ridge * params[i]
            params[i], m[i], v[i] = _adam_element(params[i], g, m[i], v[i], fixed)


@helper
def _adam_element(p, g, m, v, fixed):
    b1, c1, b2, c2, rate, floor, keep = fixed
    m = b1 * m + c1 * g
    v = b2 * v + c2 * g * g
    return keep * p - rate * m / (np.sqrt(v) + floor), m, v
