"""Losses, gradients and whole steps beside PyTorch's autograd and optimizers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.data.batch import Batch
from pympi_train.flat.memory import empty_block
from pympi_train.models.check import evaluate
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.optim.adagrad import AdaGrad
from pympi_train.optim.adam import Adam, AdamW
from pympi_train.optim.sgd import SGD

pytestmark = pytest.mark.reference
N_STEPS = 20


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def torch_loss(torch, model, tensors, batch):
    """Return the loss sum of ``batch`` by PyTorch, a scalar tensor."""
    functional = torch.nn.functional
    activations = {
        "relu": functional.relu,
        "tanh": torch.tanh,
        "gelu": lambda z: functional.gelu(z, approximate="tanh"),
        None: lambda z: z,
    }
    h, remaining = torch.from_numpy(batch.x), list(tensors)
    for layer in model.layers:
        h = h @ remaining.pop(0)
        if len(layer.tensors) == 2:
            h = h + remaining.pop(0)
        h = activations[layer.activation](h)
    weights = torch.ones(len(batch.x), dtype=torch.float64)
    if batch.weights is not None:
        weights = torch.from_numpy(batch.weights)
    y = torch.from_numpy(batch.y)
    if isinstance(model, Logistic):
        loss = torch.nn.BCEWithLogitsLoss(weight=weights, reduction="sum")
        return loss(h[:, 0], y)
    if model.task == "classification":
        losses = torch.nn.CrossEntropyLoss(reduction="none")(h, y)
    else:
        losses = 0.5 * ((h - y) ** 2).sum(dim=1)
    return (weights * losses).sum()


def point(model, seed=0):
    rng = np.random.default_rng(seed)
    params = empty_block(model.layout)
    for view in model.layout.views(params):
        view[...] = rng.standard_normal(view.shape) / 2
    return params


def leaves(torch, model, params):
    """Return copies of the tensors that PyTorch differentiates."""
    views = model.layout.views(params)
    return [torch.from_numpy(view.copy()).requires_grad_() for view in views]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("n_rows", [1, 13])
def test_loss_and_gradient(torch, model, make_batch, n_rows, weighted):
    params, batch = point(model), make_batch(model, n_rows, weighted)
    tensors = leaves(torch, model, params)
    expected = torch_loss(torch, model, tensors, batch)
    expected.backward()

    loss, grads = evaluate(model, params, batch)
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    for got, want in zip(grads, tensors):
        scale = np.abs(want.grad.numpy()).max()
        assert_allclose(got, want.grad.numpy(), rtol=1e-10, atol=1e-12 * scale)


def test_class_weights_are_sample_weights(torch, make_batch):
    model = MLP(5, [6], 3, activation="tanh", dtype="float64")
    class_weights, batch = np.array([0.2, 1.0, 4.0]), make_batch(model, 17)
    params = point(model)
    tensors = leaves(torch, model, params)
    w0, b0, w1, b1 = tensors
    logits = torch.tanh(torch.from_numpy(batch.x) @ w0 + b0) @ w1 + b1
    mean = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(class_weights))(
        logits, torch.from_numpy(batch.y)
    )
    mean.backward()

    weights = class_weights[batch.y]
    loss, grads = evaluate(model, params, batch._replace(weights=weights))
    # PyTorch's mean divides by the weight of the batch, as the loop here does.
    assert loss / weights.sum() == pytest.approx(mean.item(), rel=1e-10)
    for got, want in zip(grads, tensors):
        assert_allclose(got / weights.sum(), want.grad.numpy(), rtol=1e-9, atol=1e-14)


OPTIMIZERS = {
    "sgd": (SGD(0.1), lambda t, p: t.optim.SGD(p, lr=0.1)),
    "sgd-momentum": (
        SGD(0.05, momentum=0.9),
        lambda t, p: t.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "sgd-nesterov-decay": (
        SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
        lambda t, p: t.optim.SGD(
            p, lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1
        ),
    ),
    "adam": (Adam(lr=0.01), lambda t, p: t.optim.Adam(p, lr=0.01)),
    "adam-betas": (
        Adam(lr=0.02, betas=(0.7, 0.9), eps=1e-4),
        lambda t, p: t.optim.Adam(p, lr=0.02, betas=(0.7, 0.9), eps=1e-4),
    ),
    "adagrad": (
        AdaGrad(lr=0.1, weight_decay=0.01),
        lambda t, p: t.optim.Adagrad(p, lr=0.1, eps=1e-8, weight_decay=0.01),
    ),
    "adamw": (
        AdamW(lr=0.01, weight_decay=0.2),
        lambda t, p: t.optim.AdamW(p, lr=0.01, weight_decay=0.2),
    ),
}


def groups(model, tensors):
    """Return PyTorch parameter groups: weights, and biases without weight decay."""
    kinds = [tensor.is_weight for tensor in model.layout.tensors]
    weights = [t for t, is_weight in zip(tensors, kinds) if is_weight]
    biases = [t for t, is_weight in zip(tensors, kinds) if not is_weight]
    return [{"params": weights}, {"params": biases, "weight_decay": 0.0}]


@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps(torch, name, clip_norm, make_batch):
    model = MLP(5, [7, 6], 3, activation="gelu", dtype="float64")
    optimizer, make_theirs = OPTIMIZERS[name]
    params, grad = point(model), empty_block(model.layout)
    views, grads = model.layout.views(params), model.layout.views(grad)
    optimizer.allocate(model.layout, numpy_ops)
    tensors = leaves(torch, model, params)
    theirs = make_theirs(torch, groups(model, tensors))

    for step in range(N_STEPS):
        batch = make_batch(model, 4 + step % 3, weighted=True, seed=step)
        model.loss(views, batch)
        model.gradient(views, grads)
        optimizer.update(
            params,
            grad,
            lr=optimizer.lr,
            grad_scale=1 / batch.weights.sum(),
            l2=0.0,
            clip_norm=clip_norm,
        )
        theirs.zero_grad()
        mean = torch_loss(torch, model, tensors, batch) / batch.weights.sum()
        mean.backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(tensors, clip_norm)
        theirs.step()

    for got, want in zip(views, tensors):
        # Their clipping divides by the norm plus 1e-6.
        rtol = 1e-10 if clip_norm is None else 1e-4
        assert_allclose(got, want.detach().numpy(), rtol=rtol, atol=rtol)


def test_l2_is_coupled_weight_decay(torch, make_batch):
    model = MLP(5, [7], 2, activation="tanh", task="regression", dtype="float64")
    params, grad = point(model), empty_block(model.layout)
    views, grads = model.layout.views(params), model.layout.views(grad)
    optimizer = Adam(lr=0.01)
    optimizer.allocate(model.layout, numpy_ops)
    tensors = leaves(torch, model, params)
    theirs = torch.optim.Adam(groups(model, tensors), lr=0.01, weight_decay=0.3)
    for step in range(N_STEPS):
        batch = Batch(*make_batch(model, 6, seed=step))
        model.loss(views, batch)
        model.gradient(views, grads)
        optimizer.update(params, grad, lr=0.01, grad_scale=1 / 6, l2=0.3)
        theirs.zero_grad()
        (torch_loss(torch, model, tensors, batch) / 6).backward()
        theirs.step()
    for got, want in zip(views, tensors):
        assert_allclose(got, want.detach().numpy(), rtol=1e-10, atol=1e-12)
