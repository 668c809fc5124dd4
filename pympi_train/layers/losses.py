"""Losses of a model: the targets they require, and the op that computes them."""

import numpy as np

from pympi_train.layers import checks


class Loss:
    """A loss at the output of a model.

    Parameters
    ----------
    n_outputs : int
        Columns of the model's output, ``c``.
    dtype : str or dtype
        The dtype of the outputs.

    Attributes
    ----------
    task : str
        "classification" or "regression".
    op : str
        The function of a backend that computes it: ``op(outputs, y, weights) ->
        float`` returns the weighted loss sum and overwrites ``outputs``, shape
        (k, c), with its gradient.
    y_dtype : dtype
        The dtype of the targets of a batch.
    """

    task = op = ""

    def __init__(self, n_outputs, dtype):
        self.n_outputs = checks.count("n_outputs", n_outputs)
        self.y_dtype = checks.float_dtype(dtype)

    def y_shape(self, n_rows):
        """Return the shape of the targets of ``n_rows`` samples."""
        return (n_rows,)

    def check_values(self, y):
        """Raise ValueError if the loss is not defined for some target."""


class SoftmaxCrossEntropy(Loss):
    r"""Cross-entropy of the softmax over c classes, ``y`` class indices, shape (k,).

    .. math::
        L = \sum_i w_i \Big(\log \sum_j e^{z_{ij}} - z_{i y_i}\Big), \qquad
        \frac{\partial L}{\partial z_{ij}} = w_i (p_{ij} - [j = y_i]).
    """

    task, op = "classification", "softmax_cross_entropy"

    def __init__(self, n_outputs, dtype):
        super().__init__(checks.count("n_classes", n_outputs, least=2), dtype)
        self.y_dtype = np.dtype(np.intp)

    def check_values(self, y):
        if y.size and not (0 <= y.min() and y.max() < self.n_outputs):
            raise ValueError(
                f"y: expected class indices 0 to {self.n_outputs - 1}, got values "
                f"from {y.min()} to {y.max()}; map labels to indices first"
            )


class LogisticLoss(Loss):
    r"""Cross-entropy of the logistic function, ``y`` 0 or 1, shape (k,).

    .. math::
        L = \sum_i w_i \big(\log (1 + e^{z_i}) - y_i z_i\big), \qquad
        \frac{\partial L}{\partial z_i} = w_i \Big(\frac{1}{1 + e^{-z_i}} - y_i\Big).
    """

    task, op = "classification", "logistic_loss"

    def __init__(self, dtype):
        super().__init__(1, dtype)

    def check_values(self, y):
        wrong = (y != 0) & (y != 1)
        if wrong.any():
            raise ValueError(
                f"y: expected 0 or 1, got {y[wrong][0]} in row "
                f"{np.flatnonzero(wrong)[0]}"
            )


class SquaredError(Loss):
    r"""Half the squared error, summed over t targets; ``y`` of shape (k, t).

    .. math::
        L = \sum_i \frac{w_i}{2} \lVert h_i - y_i \rVert^2, \qquad
        \frac{\partial L}{\partial h_i} = w_i (h_i - y_i).
    """

    task, op = "regression", "squared_error"

    def __init__(self, n_outputs, dtype):
        super().__init__(checks.count("n_targets", n_outputs), dtype)

    def y_shape(self, n_rows):
        return (n_rows, self.n_outputs)
