"""Checks the gradient and the sums of a model."""

import numpy as np

from pympi_train.data.batch import Batch
from pympi_train.flat.memory import empty_block
from pympi_train.layers import checks
from pympi_train.random import INIT, uniform

STEP = 1e-6  # for parameters of size 1: a step so short rarely crosses a kink (ReLU)
# A difference of two losses of size 1 is off by some 1e-16; over 2e-6, by some 1e-10.
ROUNDING = 16 * np.finfo(np.float64).eps


def check_model(model, batch, *, seed=0, rtol=1e-6, max_entries=200):
    r"""Raise if a model's gradient or sums are wrong; for tests of your own models.

    The gradient of every tensor is compared with

    .. math::
        \frac{\partial L}{\partial p_j} \approx
            \frac{L(p + \epsilon e_j) - L(p - \epsilon e_j)}{2 \epsilon}

    at a random point near the model's initial parameters. Then loss and gradient are
    checked to be *sums* over rows: those of a batch equal the sums over its parts, and
    are zero for a batch without rows, which occurs on ranks without a share.

    Parameters
    ----------
    model : Model
        In float64, by ``model.layout.dtype``.
    batch : Batch
        A few rows, at least 2, with numbers of size 1.
    seed : int, default 0
        Seed of the random point.
    rtol : float, default 1e-6
        Accepted relative error, in addition to the rounding error of a difference.
    max_entries : int, default 200
        Maximum number of elements compared per tensor, evenly spread. Each costs two
        evaluations of the loss.

    Raises
    ------
    ValueError
        If the model is not in float64 or the batch has fewer than 2 rows.
    AssertionError
        If a check fails. The message names the tensor, the index, the expected and the
        computed value, or the property that does not hold.

    Notes
    -----
    If the loss has a kink within 1e-6 of the random point (ReLU at 0), differences are
    wrong: try another seed before you doubt your gradient.
    """
    checks.count("rows of batch", len(batch.x), least=2)
    if model.layout.dtype != np.float64:
        raise ValueError(
            f"model.layout.dtype: expected float64, got {model.layout.dtype}; "
            "differences of float32 losses say little"
        )
    params = _point(model, seed)
    loss, grads = evaluate(model, params, batch)
    _check_differences(model, params, batch, grads, rtol, max_entries)
    _check_sums(model, params, batch, loss, grads)


def evaluate(model, params, batch):
    """Return (loss sum, list of gradient views) at the flat block ``params``."""
    grads = model.layout.views(empty_block(model.layout))
    for grad in grads:
        grad[...] = np.nan  # the model must overwrite every element
    views = model.layout.views(params)
    loss = model.loss(views, batch)
    model.gradient(views, grads)
    for tensor, grad in zip(model.layout.tensors, grads):
        if np.isnan(grad).any():
            raise AssertionError(
                f"{tensor.name}: expected gradient() to overwrite every element by "
                f"a number, got NaN in {np.isnan(grad).sum()} of {grad.size}"
            )
    return loss, grads


def _point(model, seed):
    """Return a block near the initial parameters, which are too symmetric if zero."""
    params = empty_block(model.layout)
    views = model.layout.views(params)
    model.init(views, seed)
    noise = uniform(seed, INIT, params.size) - 0.5
    for view, extra in zip(views, model.layout.views(noise)):
        view += 0.5 * extra
    return params


def _check_differences(model, params, batch, grads, rtol, max_entries):
    views = model.layout.views(params)
    for tensor, view, grad in zip(model.layout.tensors, views, grads):
        count = min(tensor.size, max_entries)
        for j in np.linspace(0, tensor.size - 1, count).astype(int):
            index = np.unravel_index(j, tensor.shape)
            expected, error = _difference(model, views, batch, view, index)
            got = grad[index]
            if abs(got - expected) > rtol * max(abs(got), abs(expected)) + error:
                place = ", ".join(map(str, index))
                raise AssertionError(
                    f"gradient of {tensor.name}[{place}]: expected {expected:.9g} "
                    f"(central difference), got {got:.9g}"
                )


def _difference(model, views, batch, view, index):
    """Return (central difference at ``view[index]``, its error from rounding)."""
    middle = view[index]
    step = STEP * max(1.0, abs(middle))
    view[index] = middle + step
    above = model.loss(views, batch)
    view[index] = middle - step
    below = model.loss(views, batch)
    view[index] = middle
    error = ROUNDING * max(abs(above), abs(below), 1.0) / step
    return (above - below) / (2 * step), error


def _check_sums(model, params, batch, loss, grads):
    cut = len(batch.x) // 2
    parts = [evaluate(model, params, rows(batch, s)) for s in _halves(cut)]
    none, zeros = evaluate(model, params, rows(batch, slice(0, 0)))
    if none != 0 or any(zero.any() for zero in zeros):
        raise AssertionError(
            f"batch without rows: expected loss 0 and gradient 0, got loss {none} "
            f"and a gradient of up to {max(abs(z).max(initial=0) for z in zeros)}"
        )
    total = parts[0][0] + parts[1][0]
    if not np.isclose(total, loss, rtol=1e-9, atol=1e-12):
        raise AssertionError(
            f"loss: expected the sum over rows, {total:.9g} from two halves of the "
            f"batch, got {loss:.9g} for the whole; divide by no count"
        )
    for i, tensor in enumerate(model.layout.tensors):
        whole, halves = grads[i], parts[0][1][i] + parts[1][1][i]
        if not np.allclose(whole, halves, rtol=1e-9, atol=1e-9 * abs(halves).max()):
            raise AssertionError(
                f"gradient of {tensor.name}: expected the sum over rows, but two "
                f"halves of the batch differ from the whole by up to "
                f"{abs(whole - halves).max():.3g}; divide by no count"
            )


def _halves(cut):
    return slice(0, cut), slice(cut, None)


def rows(batch, part):
    """Return the rows of a batch in ``part``, a slice."""
    weights = None if batch.weights is None else batch.weights[part]
    return Batch(batch.x[part], batch.y[part], weights)
