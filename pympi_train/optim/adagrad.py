"""AdaGrad on a flat block."""

from pympi_train.optim.adam import LEAST_EPS
from pympi_train.optim.base import Optimizer, require


class AdaGrad(Optimizer):
    r"""AdaGrad, diagonal, in place on one flat block.

    With gradient :math:`g` as in `Optimizer`,

    .. math::
        s \leftarrow s + g^2, \qquad
        p \leftarrow p - \eta\, \frac{g}{\sqrt{s} + \varepsilon}.

    Each parameter has its own step size, which falls with the gradients that it has
    seen: features that are rare in sparse rows still learn when they occur.

    Parameters
    ----------
    lr : float, default 0.1
        Step size :math:`\eta > 0`, in units of the parameters: the first step of each
        parameter.
    eps : float, default 1e-8
        Added to the denominator, outside the root, in units of the gradient.
    weight_decay : float, default 0.0
        Adds ``weight_decay * p`` to the gradient of weights, after clipping.

    Attributes
    ----------
    state : dict
        The sums of squares ``squares``: 4 bytes per parameter in float32.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    References
    ----------
    .. [1] J. Duchi, E. Hazan and Y. Singer, "Adaptive Subgradient Methods for Online
       Learning and Stochastic Optimization", JMLR 12 (2011), Figure 1, with the
       diagonal of the matrix; in the form of ``torch.optim.Adagrad``.

    Examples
    --------
    >>> import numpy as np
    >>> from pympi_train.backends.numpy import ops
    >>> from pympi_train.flat.memory import Layout, Tensor
    >>> adagrad = AdaGrad(lr=0.5)
    >>> adagrad.allocate(Layout([Tensor("w", (8,))], "float64"), ops)
    >>> params, grad_sum = np.ones(8), np.full(8, 8.0)  # over a batch of 8
    >>> adagrad.update(params, grad_sum, lr=adagrad.lr, grad_scale=1 / 8, l2=0.0)
    >>> params.round(6)
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    """

    def __init__(self, lr=0.1, eps=1e-8, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        require(LEAST_EPS <= eps < 1, "eps", f"in [{LEAST_EPS}, 1)", eps)
        self.eps = float(eps)

    @property
    def is_lazy(self):
        """Whether there is no weight decay."""
        return not self.weight_decay

    def _state_names(self):
        return ("squares",)

    def _apply(self, params, grad, lr, grad_scale, l2, decay, **on_device):
        self._ops.adagrad_update(
            params,
            grad,
            *self._state,
            lr=lr,
            eps=self.eps,
            grad_scale=grad_scale,
            l2=l2,
            runs=self._runs,
            **on_device,
        )
