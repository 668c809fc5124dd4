"""Linear regression."""

from pympi_train.layers import checks
from pympi_train.layers.dense import Dense
from pympi_train.layers.losses import SquaredError
from pympi_train.models.network import Network


class Linear(Network):
    r"""Linear regression, :math:`h_\theta(x) = x W + b`, of one or several targets.

    The loss sum over the rows of a batch, with weights of 1 by default, is

    .. math::
        \sum_i \frac{w_i}{2} \lVert h_\theta(x_i) - y_i \rVert^2,

    so that its mean over m rows is :math:`J(\theta) = \frac{1}{2m} \sum_i
    (h_\theta(x_i) - y_i)^2`.

    Parameters
    ----------
    n_features : int
        Columns of ``x``, d.
    n_targets : int, default 1
        Columns of ``y``, t: a batch holds ``y`` of shape (k, t).
    intercept : bool, default True
        Whether there is a ``b``; L2 does not apply to it.
    dtype : {"float32", "float64"}
        The dtype of parameters, gradients and batches.

    Attributes
    ----------
    layout : Layout
        "weight", shape (d, t), and "intercept", shape (t,). Both start at zero.

    Raises
    ------
    ValueError
        If a count is not positive or the dtype not supported.
    """

    def __init__(
        self,
        n_features,
        n_targets=1,
        *,
        intercept=True,
        dtype="float32",
    ):
        head = SquaredError(n_targets, dtype)
        layer = Dense(
            checks.count("n_features", n_features),
            head.n_outputs,
            bias=intercept,
            names=("weight", "intercept"),
            input_gradient=False,
            dtype=dtype,
        )
        super().__init__([layer], head, dtype)
