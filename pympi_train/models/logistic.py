"""Logistic regression."""

from pympi_train.layers import checks
from pympi_train.layers.dense import Dense
from pympi_train.layers.losses import LogisticLoss
from pympi_train.models.network import Network


class Logistic(Network):
    r"""Logistic regression: two classes, one logit :math:`z = x w + b`.

    The loss sum over the rows of a batch is

    .. math::
        \sum_i w_i \big(\log (1 + e^{z_i}) - y_i z_i\big), \qquad y_i \in \{0, 1\}.

    Parameters
    ----------
    n_features : int
        Columns of ``x``, d. A batch holds ``y`` of shape (k,), 0 or 1, in ``dtype``.
    intercept : bool, default True
        Whether there is a ``b``; L2 does not apply to it.
    dtype : {"float32", "float64"}
        The dtype of parameters, gradients and batches.

    Attributes
    ----------
    layout : Layout
        "weight", shape (d, 1), and "intercept", shape (1,). Both start at zero.
    n_outputs : int
        1, the logit; ``decide`` returns class 1 if it is positive.

    Raises
    ------
    ValueError
        If the count is not positive or the dtype not supported.
    """

    def __init__(self, n_features, *, intercept=True, dtype="float32"):
        layer = Dense(
            checks.count("n_features", n_features),
            1,
            bias=intercept,
            names=("weight", "intercept"),
            input_gradient=False,
            dtype=dtype,
        )
        super().__init__([layer], LogisticLoss(dtype), dtype)
