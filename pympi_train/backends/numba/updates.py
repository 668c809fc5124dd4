"""Updates of flat blocks, compiled; each makes one pass over memory."""

import numpy as np

from pympi_train.backends.numba.jit import helper, kernel
from pympi_train.backends.scalars import adam_scalars
from pympi_train.backends.threads import CHUNK_STEP, for_chunks, over_chunks
from pympi_train.flat.runs import by_run

LANES = 256  # independent sums, in L1; a single sum would wait for every addition


def sgd_update(
    params, grad, velocity, *, lr, grad_scale, l2, momentum, nesterov, runs=None
):
    """Update ``params`` by SGD; see ``numpy.ops``.

    Moves 12 bytes per float32 parameter, 20 with momentum.
    """
    for (p, g, v), (ridge,) in by_run((params, grad, velocity), runs, (l2,)):
        if momentum == 0.0:
            over_chunks(_sgd, (p, g), (lr, grad_scale, ridge))
        else:
            scalars = lr, grad_scale, ridge, momentum, nesterov
            over_chunks(_momentum, (p, g, v), scalars)


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
):
    """Update ``params`` by Adam; see ``numpy.ops``.

    Moves 28 bytes per float32 parameter.
    """
    arrays = params, grad, m, v
    for cut, (ridge, shrinking) in by_run(arrays, runs, (l2, decay)):
        scalars = adam_scalars(step, lr, beta1, beta2, eps, shrinking)
        over_chunks(_adam, cut, (grad_scale, ridge, *scalars))


def adagrad_update(params, grad, squares, *, lr, eps, grad_scale, l2, runs=None):
    """Update ``params`` by AdaGrad; see ``numpy.ops``.

    Moves 20 bytes per float32 parameter.
    """
    for cut, (ridge,) in by_run((params, grad, squares), runs, (l2,)):
        over_chunks(_adagrad, cut, (lr, eps, grad_scale, ridge))


def squared_norm(grad, params, *, grad_scale, l2, runs=None):
    """Return |grad_scale grad + l2 params|^2; see ``numpy.ops``."""
    total = 0.0
    for (g, p), (ridge,) in by_run((grad, params), runs, (l2,)):
        total += _squared_norm(g, p, grad_scale, ridge)
    return total


def weights_square(params, runs):
    """Return |W|^2 over the weights of ``params``; see ``numpy.ops``."""
    total = 0.0
    for part, is_weight in runs:
        if is_weight:
            total += _squared_norm(params[part], None, 1.0, 0.0)
    return total


def _squared_norm(grad, params, grad_scale, l2):
    # A partial sum for each block of fixed size, so that the result does not depend on
    # the number of threads.
    step = CHUNK_STEP
    partial = np.empty(-(-grad.size // step))
    params = grad if l2 == 0.0 else params

    def sum_chunk(piece):
        sums = partial[piece.start // step : -(-piece.stop // step)]
        _sum_squares(grad[piece], params[piece], grad_scale, l2, step, sums)

    for_chunks(sum_chunk, grad.size)
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
def _momentum(params, grad, velocity, lr, grad_scale, l2, momentum, nesterov):
    T = params.dtype.type
    rate, scale, ridge, mu = T(lr), T(grad_scale), T(l2), T(momentum)
    # Branches inside the loops would prevent vectorisation.
    if l2 == 0.0 and nesterov:
        for i in range(params.size):
            g = scale * grad[i]
            velocity[i] = mu * velocity[i] + g
            params[i] -= rate * (g + mu * velocity[i])
    elif l2 == 0.0:
        for i in range(params.size):
            velocity[i] = mu * velocity[i] + scale * grad[i]
            params[i] -= rate * velocity[i]
    elif nesterov:
        for i in range(params.size):
            g = scale * grad[i] + ridge * params[i]
            velocity[i] = mu * velocity[i] + g
            params[i] -= rate * (g + mu * velocity[i])
    else:
        for i in range(params.size):
            g = scale * grad[i] + ridge * params[i]
            velocity[i] = mu * velocity[i] + g
            params[i] -= rate * velocity[i]


@kernel
def _adagrad(params, grad, squares, lr, eps, grad_scale, l2):
    T = params.dtype.type
    rate, floor, scale, ridge = T(lr), T(eps), T(grad_scale), T(l2)
    if l2 == 0.0:
        for i in range(params.size):
            g = scale * grad[i]
            squares[i] += g * g
            params[i] -= rate * g / (np.sqrt(squares[i]) + floor)
    else:
        for i in range(params.size):
            g = scale * grad[i] + ridge * params[i]
            squares[i] += g * g
            params[i] -= rate * g / (np.sqrt(squares[i]) + floor)


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


@kernel
def _sum_squares(grad, params, grad_scale, l2, step, partial):
    T = grad.dtype.type
    scale, ridge = T(grad_scale), T(l2)
    lanes = np.empty(LANES)
    for block in range(partial.size):
        stop = min((block + 1) * step, grad.size)
        lanes[:] = 0.0
        for start in range(block * step, stop, LANES):
            g = grad[start : min(start + LANES, stop)]
            if l2 == 0.0:
                for i in range(g.size):
                    x = np.float64(scale * g[i])
                    lanes[i] += x * x
            else:
                p = params[start : start + LANES]
                for i in range(g.size):
                    x = np.float64(scale * g[i] + ridge * p[i])
                    lanes[i] += x * x
        partial[block] = lanes.sum()
