"""Gradient descent, stochastic and full-batch, on a flat block."""

from pympi_train.optim.base import Optimizer, require


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum, in place on one flat block.

    .. math::
        v \leftarrow \mu v + g, \qquad
        p \leftarrow p - \eta\, v \quad\text{or, Nesterov,}\quad
        p \leftarrow p - \eta\, (g + \mu v),

    and :math:`p \leftarrow p - \eta g` without momentum; :math:`g` as in
    `Optimizer`.

    Parameters
    ----------
    lr : float
        Step size :math:`\eta > 0`.
    momentum : float, default 0.0
        Factor :math:`\mu` in [0, 1); 0 keeps no state.
    nesterov : bool, default False
        Look ahead by one step of momentum; needs ``momentum > 0``.
    weight_decay : float, default 0.0
        Adds ``weight_decay * p`` to the gradient of weights, after clipping.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    The velocity holds gradients, not steps, as in ``torch.optim.SGD``: the first
    update is a plain step, and a change of the step size takes effect at once.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of
       initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from pympi_train.backends.numpy import ops
    >>> from pympi_train.flat.memory import Layout, Tensor
    >>> sgd = SGD(lr=0.5)
    >>> sgd.allocate(Layout([Tensor("w", (8,))], "float64"), ops)
    >>> params, grad_sum = np.ones(8), np.full(8, 8.0)  # over a batch of 8
    >>> sgd.update(params, grad_sum, lr=sgd.lr, grad_scale=1 / 8, l2=0.0)
    >>> params
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    """

    def __init__(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        require(0 <= momentum < 1, "momentum", "in [0, 1)", momentum)
        require(
            momentum > 0 or not nesterov,
            "momentum",
            "positive for nesterov",
            momentum,
        )
        self.momentum, self.nesterov = float(momentum), bool(nesterov)

    @property
    def is_lazy(self):
        """Whether there is neither momentum nor weight decay."""
        return not self.momentum and not self.weight_decay

    def _direct_decay(self, l2):
        return self._coupled + l2

    def _state_names(self):
        return ("velocity",) if self.momentum else ()

    def _apply(self, params, grad, lr, grad_scale, l2, decay, **on_device):
        self._ops.sgd_update(
            params,
            grad,
            self._state[0] if self._state else None,
            lr=lr,
            grad_scale=grad_scale,
            l2=l2,
            momentum=self.momentum,
            nesterov=self.nesterov,
            runs=self._runs,
            **on_device,
        )


class GD(SGD):
    r"""Gradient descent over all rows: :math:`p \leftarrow p - \eta \nabla J(p)`.

    Parameters
    ----------
    lr : float
        Step size :math:`\eta > 0`. Below ``2 / L`` the cost of a convex model falls
        with each update, where ``L`` is its largest curvature.

    Raises
    ------
    ValueError
        If ``lr`` is not positive.
    """

    full_batch = True

    def __init__(self, lr):
        super().__init__(lr)
