"""check_model finds what is wrong with a model."""

import numpy as np
import pytest

from pympi_train.data.batch import Batch
from pympi_train.flat.memory import Tensor
from pympi_train.models.check import check_model
from pympi_train.models.function import FunctionModel
from pympi_train.models.linear import Linear
from pympi_train.models.mlp import MLP

RNG = np.random.default_rng(0)
BATCH = Batch(RNG.standard_normal((6, 3)), RNG.standard_normal((6, 2)))


def right(params, batch, grads):
    error = batch.x @ params["weight"] - batch.y
    grads["weight"][...] = batch.x.T @ error
    return 0.5 * (error**2).sum()


def check(function, **arguments):
    model = FunctionModel([Tensor("weight", (3, 2))], function, dtype="float64")
    check_model(model, BATCH, **arguments)


def test_accepts_the_right_gradient():
    check(right)


def test_names_tensor_index_expected_and_got():
    def wrong(params, batch, grads):
        loss = right(params, batch, grads)
        grads["weight"][1, 1] *= 1 + 1e-5
        return loss

    with pytest.raises(AssertionError) as error:
        check(wrong)
    assert "gradient of weight[1, 1]: expected " in str(error.value)
    assert "(central difference), got " in str(error.value)
    check(wrong, rtol=1e-4)


def test_finds_a_mean_in_place_of_a_sum():
    def mean(params, batch, grads):
        n_rows = max(len(batch.x), 1)
        loss = right(params, batch, grads)
        grads["weight"] /= n_rows
        return loss / n_rows

    with pytest.raises(AssertionError, match="loss: expected the sum over rows"):
        check(mean)


def test_finds_a_batch_without_rows_that_is_not_zero():
    def constant(params, batch, grads):
        return right(params, batch, grads) + 1.0

    with pytest.raises(AssertionError, match="gradient 0, got loss 1"):
        check(constant)


def test_finds_elements_left_unwritten():
    class Forgets(Linear):
        def gradient(self, params, grads):
            super().gradient(params, [grads[0], np.empty_like(grads[1])])

    with pytest.raises(AssertionError, match="intercept: .* NaN in 2 of 2"):
        check_model(Forgets(3, 2, dtype="float64"), BATCH)


def test_large_tensors_are_sampled(monkeypatch):
    model = MLP(3, [40, 40], 2, activation="tanh", task="regression", dtype="float64")
    losses, loss = [], model.loss
    monkeypatch.setattr(model, "loss", lambda *a: losses.append(1) or loss(*a))
    check_model(model, BATCH, max_entries=10)
    assert len(losses) < 2 * 10 * len(model.layout.tensors) + 10


def test_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="expected float64, got float32"):
        check_model(Linear(3, 2), BATCH)
    with pytest.raises(ValueError, match="rows of batch: expected an integer >= 2"):
        check_model(Linear(3, 2, dtype="float64"), Batch(BATCH.x[:1], BATCH.y[:1]))
