"""Adam and AdamW on a flat block."""

from pympi_train.optim.base import Optimizer, require

# Below, eps vanishes in float32, and a gradient of zero (padding) gives 0 / 0.
LEAST_EPS = 1e-30


class Adam(Optimizer):
    r"""Adam with bias correction, in place on one flat block.

    At step :math:`t = 1, 2, \dots`, with gradient :math:`g` as in `Optimizer`,

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
        p \leftarrow p - \eta\,
            \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \varepsilon}.

    Parameters
    ----------
    lr : float, default 1e-3
        Step size :math:`\eta > 0`, in units of the parameters. It roughly bounds
        the change of a parameter in one step.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the two moments per step, each in [0, 1). The memory of a
        moment is about ``1 / (1 - beta)`` steps.
    eps : float, default 1e-8
        Added to the denominator, outside the root, in units of the gradient.
    weight_decay : float, default 0.0
        Adds ``weight_decay * p`` to the gradient of weights, after clipping.

    Attributes
    ----------
    state : dict
        The two moments ``m`` and ``v``: together 8 bytes per parameter in float32.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A Method for Stochastic
       Optimization", ICLR 2015, Algorithm 1. arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np
    >>> from pympi_train.backends.numpy import ops
    >>> from pympi_train.flat.memory import Layout, Tensor
    >>> adam = Adam(lr=0.5)
    >>> adam.allocate(Layout([Tensor("w", (8,))], "float64"), ops)
    >>> params, grad_sum = np.ones(8), np.full(8, 8.0)  # over a batch of 8
    >>> adam.update(params, grad_sum, lr=adam.lr, grad_scale=1 / 8, l2=0.0)
    >>> params.round(6)
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    """

    def __init__(self, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        require(
            len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "betas",
            "two numbers in [0, 1)",
            betas,
        )
        require(LEAST_EPS <= eps < 1, "eps", f"in [{LEAST_EPS}, 1)", eps)
        self.betas, self.eps = tuple(map(float, betas)), float(eps)

    def _state_names(self):
        return ("m", "v")

    def _apply(self, params, grad, lr, grad_scale, l2, decay, **on_device):
        self._ops.adam_update(
            params,
            grad,
            *self._state,
            step=self.step,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            grad_scale=grad_scale,
            l2=l2,
            decay=decay,
            runs=self._runs,
            **on_device,
        )


class AdamW(Adam):
    r"""Adam with weight decay decoupled from the gradient.

    The update is that of `Adam`; weights also shrink by
    :math:`p \leftarrow p - \eta\lambda p`, which does not enter the moments.

    Parameters
    ----------
    lr, betas, eps
        As for `Adam`.
    weight_decay : float, default 0.01
        Rate :math:`\lambda \ge 0`; acts on weights only, and follows the schedule
        through :math:`\eta`.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization",
       ICLR 2019, Algorithm 2. arXiv:1711.05101.
    """

    decoupled = True

    def __init__(self, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(lr, betas, eps, weight_decay)
