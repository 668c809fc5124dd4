"""Updates of flat blocks with NumPy: ufuncs in place, a cache-sized block at a time."""

import numpy as np

from pympi_train.backends.blocks import flat_blocks, quiet, scratch, typed
from pympi_train.backends.scalars import adam_scalars
from pympi_train.flat.runs import by_run


def sgd_update(
    params, grad, velocity, *, lr, grad_scale, l2, momentum, nesterov, runs=None
):
    r"""Update ``params`` in place by (momentum) stochastic gradient descent.

    With :math:`g = s\,\mathrm{grad} + \lambda p`,

    .. math::
        v \leftarrow \mu v + g, \qquad
        p \leftarrow p - \eta\,(g + \mu v \text{ if Nesterov, else } v),

    and :math:`p \leftarrow p - \eta g` without momentum.

    Parameters
    ----------
    params, grad : ndarray, shape (n,)
        Parameters and the sum of gradients; ``grad`` is not changed.
    velocity : ndarray, shape (n,), or None
        :math:`v`, zero before the first update; None when ``momentum`` is 0.
    lr, grad_scale, l2, momentum : float
        :math:`\eta, s, \lambda, \mu`. ``grad_scale`` turns the sum into a mean and
        clips it; clipping scales ``l2`` as well.
    nesterov : bool
        Whether to use Nesterov's momentum.
    runs : Runs, optional
        ``l2`` applies to the weights of these runs; without them, to all elements.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of
       initialization and momentum in deep learning", ICML 2013; in the form of
       PyTorch, where the learning rate does not enter the velocity.
    """
    for (p, g, v), (ridge,) in by_run((params, grad, velocity), runs, (l2,)):
        if momentum == 0.0:
            _sgd(p, g, lr, grad_scale, ridge)
        else:
            _momentum(p, g, v, lr, grad_scale, ridge, momentum, nesterov)


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
    r"""Update ``params`` in place by Adam, or AdamW.

    With :math:`g = s\,\mathrm{grad} + \lambda p` and update number :math:`t`,

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
        p \leftarrow (1 - \eta\delta)\, p - \eta\,
            \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \varepsilon}.

    Parameters
    ----------
    params, grad : ndarray, shape (n,)
        Parameters and the sum of gradients; ``grad`` is not changed.
    m, v : ndarray, shape (n,)
        First and second moment, zero before the first update.
    step : int
        :math:`t`, counted from 1.
    lr, beta1, beta2, eps : float
        :math:`\eta, \beta_1, \beta_2, \varepsilon`.
    grad_scale, l2, decay : float
        :math:`s`, the coupled decay :math:`\lambda` (Adam) and the decoupled decay
        :math:`\delta` (AdamW).
    runs : Runs, optional
        ``l2`` and ``decay`` apply to the weights of these runs, as in `sgd_update`.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization",
       ICLR 2015, Algorithm 1. arXiv:1412.6980.
    .. [2] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization",
       ICLR 2019. arXiv:1711.05101.
    """
    arrays = params, grad, m, v
    for cut, (ridge, shrinking) in by_run(arrays, runs, (l2, decay)):
        scalars = adam_scalars(step, lr, beta1, beta2, eps, shrinking)
        _adam(*cut, grad_scale, ridge, *scalars)


def adagrad_update(params, grad, squares, *, lr, eps, grad_scale, l2, runs=None):
    r"""Update ``params`` in place by AdaGrad.

    With :math:`g = s\,\mathrm{grad} + \lambda p`,

    .. math::
        q \leftarrow q + g^2, \qquad
        p \leftarrow p - \eta\, \frac{g}{\sqrt{q} + \varepsilon}.

    Parameters
    ----------
    params, grad : ndarray, shape (n,)
        Parameters and the sum of gradients; ``grad`` is not changed.
    squares : ndarray, shape (n,)
        :math:`q`, zero before the first update.
    lr, eps, grad_scale, l2 : float
        :math:`\eta, \varepsilon, s, \lambda`.
    runs : Runs, optional
        ``l2`` applies to the weights of these runs, as in `sgd_update`.

    Notes
    -----
    A parameter with gradient 0 is not changed, not even in its last bit.

    References
    ----------
    .. [1] J. Duchi, E. Hazan and Y. Singer, "Adaptive Subgradient Methods for Online
       Learning and Stochastic Optimization", JMLR 12 (2011), Figure 1.
    """
    for cut, (ridge,) in by_run((params, grad, squares), runs, (l2,)):
        _adagrad(*cut, lr, eps, grad_scale, ridge)


def squared_norm(grad, params, *, grad_scale, l2, runs=None):
    """Return |grad_scale grad + l2 params|^2, accumulated in float64.

    Parameters
    ----------
    grad, params : ndarray, shape (n,)
        The sum of gradients, and the parameters, which are not used if ``l2`` is 0.
    grad_scale, l2, runs
        As in the updates.

    Returns
    -------
    float
        Does not depend on the number of threads.
    """
    total = 0.0
    for (g, p), (ridge,) in by_run((grad, params), runs, (l2,)):
        total += _squared_norm(g, p, grad_scale, ridge)
    return total


def weights_square(params, runs):
    """Return |W|^2 over the weights of ``params``, shape (n,), in float64."""
    total = 0.0
    for part, is_weight in runs:
        if is_weight:
            total += _squared_norm(params[part], None, 1.0, 0.0)
    return total


@quiet
def _squared_norm(grad, params, grad_scale, l2):
    scale, ridge = typed(grad.dtype, grad_scale, l2)
    double = np.dtype(np.float64)
    total = 0.0
    for block in flat_blocks(grad):
        g = _scaled(grad[block], params[block] if l2 else None, scale, ridge)
        wide = scratch(double, g.size, slot=2)
        np.copyto(wide, g)
        np.multiply(wide, wide, out=wide)
        total += float(np.add.reduce(wide))
    return total


def _scaled(grad, params, scale, ridge):
    """Return ``scale grad + ridge params`` in scratch slot 0; overwrite slot 1."""
    g = scratch(grad.dtype, grad.size)
    np.multiply(grad, scale, out=g)
    if params is not None:
        term = scratch(grad.dtype, grad.size, slot=1)
        np.multiply(params, ridge, out=term)
        np.add(g, term, out=g)
    return g


@quiet
def _sgd(params, grad, lr, grad_scale, l2):
    rate, scale, ridge = typed(params.dtype, lr, grad_scale, l2)
    for block in flat_blocks(params):
        p = params[block]
        g = _scaled(grad[block], p if l2 else None, scale, ridge)
        np.multiply(g, rate, out=g)
        np.subtract(p, g, out=p)


@quiet
def _momentum(params, grad, velocity, lr, grad_scale, l2, momentum, nesterov):
    rate, scale, ridge, mu = typed(params.dtype, lr, grad_scale, l2, momentum)
    for block in flat_blocks(params):
        p, v = params[block], velocity[block]
        g = _scaled(grad[block], p if l2 else None, scale, ridge)
        np.multiply(v, mu, out=v)
        np.add(v, g, out=v)
        if nesterov:
            ahead = scratch(p.dtype, p.size, slot=1)
            np.multiply(v, mu, out=ahead)
            np.add(g, ahead, out=g)
            np.multiply(g, rate, out=g)
        else:
            np.multiply(v, rate, out=g)
        np.subtract(p, g, out=p)


@quiet
def _adagrad(params, grad, squares, lr, eps, grad_scale, l2):
    rate, floor, scale, ridge = typed(params.dtype, lr, eps, grad_scale, l2)
    for block in flat_blocks(params):
        p, q = params[block], squares[block]
        g = _scaled(grad[block], p if l2 else None, scale, ridge)
        adagrad_block(p, g, q, scratch(p.dtype, p.size, slot=1), rate, floor)


def adagrad_block(p, g, q, term, rate, floor):
    """Update one block; ``g`` and ``term`` are overwritten.

    ``rate`` may have an element for each column of the block.
    """
    np.multiply(g, g, out=term)
    np.add(q, term, out=q)
    np.sqrt(q, out=term)
    np.add(term, floor, out=term)
    np.multiply(g, rate, out=g)
    np.divide(g, term, out=g)
    np.subtract(p, g, out=p)


@quiet
def _adam(params, grad, m, v, grad_scale, l2, *scalars):
    scale, ridge, *rounded = typed(params.dtype, grad_scale, l2, *scalars)
    if rounded[-1] == 1.0:
        rounded[-1] = None
    for block in flat_blocks(params):
        p = params[block]
        g = _scaled(grad[block], p if l2 else None, scale, ridge)
        term = scratch(p.dtype, p.size, slot=1)
        adam_block(p, g, m[block], v[block], term, *rounded)


def adam_block(p, g, m, v, term, b1, c1, b2, c2, rate, floor, keep):
    """Update one block; ``g`` and ``term`` are overwritten.

    ``rate``, ``floor`` and ``keep`` may have an element for each column of the block;
    ``keep`` may be None for 1.
    """
    np.multiply(g, c1, out=term)
    np.multiply(m, b1, out=m)
    np.add(m, term, out=m)
    np.multiply(g, c2, out=term)
    np.multiply(term, g, out=term)
    np.multiply(v, b2, out=v)
    np.add(v, term, out=v)
    np.sqrt(v, out=g)
    np.add(g, floor, out=g)
    np.multiply(m, rate, out=term)
    np.divide(term, g, out=term)
    if keep is not None:
        np.multiply(p, keep, out=p)
    np.subtract(p, term, out=p)
