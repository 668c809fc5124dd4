"""What a batch must hold for each loss."""

import numpy as np
import pytest

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.layers.losses import LogisticLoss, SoftmaxCrossEntropy, SquaredError

SOFTMAX = SoftmaxCrossEntropy(3, "float32")
LOGISTIC = LogisticLoss("float64")
SQUARED = SquaredError(2, "float32")


@pytest.mark.parametrize(
    ("loss", "shape", "dtype", "task"),
    [
        (SOFTMAX, (7,), np.intp, "classification"),
        (LOGISTIC, (7,), np.float64, "classification"),
        (SQUARED, (7, 2), np.float32, "regression"),
    ],
    ids=["softmax", "logistic", "squared"],
)
def test_targets(loss, shape, dtype, task):
    assert (loss.y_shape(7), loss.y_dtype, loss.task) == (shape, dtype, task)


def test_gradient_replaces_the_outputs():
    outputs = np.array([[1.0, 2.0]], "f4")
    squared_error = getattr(numpy_ops, SQUARED.op)
    assert squared_error(outputs, np.array([[0.0, 4.0]], "f4"), None) == 2.5
    assert outputs.tolist() == [[1, -2]]


@pytest.mark.parametrize(
    ("loss", "good", "bad"),
    [(SOFTMAX, [0, 1, 2], [0, 3, 1]), (LOGISTIC, [0.0, 1], [1, 0.5])],
    ids=["softmax", "logistic"],
)
def test_values(loss, good, bad):
    loss.check_values(np.array(good))
    loss.check_values(np.array(good)[:0])
    with pytest.raises(ValueError, match="y: expected .*got"):
        loss.check_values(np.array(bad))
