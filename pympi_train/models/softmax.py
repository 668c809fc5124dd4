"""Softmax regression."""

from pympi_train.layers import checks
from pympi_train.layers.dense import Dense
from pympi_train.layers.losses import SoftmaxCrossEntropy
from pympi_train.models.network import Network


class Softmax(Network):
    r"""Softmax (multinomial logistic) regression: logits :math:`z = x W + b`.

    The loss sum over the rows of a batch is

    .. math::
        \sum_i w_i \Big(\log \sum_j e^{z_{ij}} - z_{i y_i}\Big).

    Parameters
    ----------
    n_features : int
        Columns of ``x``, d.
    n_classes : int
        Number of classes c, at least 2. A batch holds ``y`` of shape (k,), intp, from 0
        to c - 1.
    intercept : bool, default True
        Whether there is a ``b``; L2 does not apply to it.
    dtype : {"float32", "float64"}
        The dtype of parameters, gradients and the features of batches.

    Attributes
    ----------
    layout : Layout
        "weight", shape (d, c), and "intercept", shape (c,). Both start at zero.

    Raises
    ------
    ValueError
        If a count is too small or the dtype not supported.
    """

    def __init__(self, n_features, n_classes, *, intercept=True, dtype="float32"):
        head = SoftmaxCrossEntropy(n_classes, dtype)
        layer = Dense(
            checks.count("n_features", n_features),
            head.n_outputs,
            bias=intercept,
            names=("weight", "intercept"),
            input_gradient=False,
            dtype=dtype,
        )
        super().__init__([layer], head, dtype)
