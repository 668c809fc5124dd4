import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.flat.memory import Layout, Tensor
from pympi_train.optim.sgd import GD, SGD


def reference(p, grads, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """The three lines of the docstring, in float64."""
    v = np.zeros_like(p)
    for g in grads:
        g = g + weight_decay * p
        v = momentum * v + g
        p = p - lr * (g + momentum * v if nesterov else v)
    return p


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(weight_decay=0.1),
        dict(momentum=0.9),
        dict(momentum=0.9, nesterov=True, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("dtype, atol", [("float32", 5e-6), ("float64", 1e-14)])
def test_matches_the_formula_in_float64(make_blocks, options, dtype, atol):
    blocks = make_blocks(dtype)
    sgd = SGD(lr=0.05, **options)
    sgd.allocate(blocks.layout, blocks.ops)
    start = blocks.params.astype(np.float64)
    grads = np.random.default_rng(1).standard_normal((50, start.size))
    grads *= blocks.is_tensor
    for g in grads:
        blocks.grad[:] = 8 * g
        sgd.update(blocks.params, blocks.grad, lr=0.05, grad_scale=1 / 8, l2=0.0)
    decay = options.pop("weight_decay", 0.0) * blocks.is_weight
    want = reference(start, grads, 0.05, weight_decay=decay, **options)
    assert_allclose(blocks.params, want, rtol=0, atol=atol)
    assert sgd.step == 50


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_gd_equals_sgd_without_momentum(make_blocks, l2):
    results = []
    for optimizer in (GD(lr=0.1), SGD(lr=0.1)):
        blocks = make_blocks("float32")
        optimizer.allocate(blocks.layout, blocks.ops)
        for _ in range(3):
            optimizer.update(
                blocks.params, blocks.grad, lr=0.1, grad_scale=0.5, l2=l2
            )
        results.append(blocks.params)
    assert_array_equal(*results)
    assert GD(lr=0.1).full_batch and not SGD(lr=0.1).full_batch


def test_weight_decay_equals_l2(make_blocks):
    results = []
    for weight_decay, l2 in ((0.5, 0.0), (0.0, 0.5)):
        blocks = make_blocks()
        sgd = SGD(lr=0.1, momentum=0.9, weight_decay=weight_decay)
        sgd.allocate(blocks.layout, blocks.ops)
        for _ in range(3):
            sgd.update(blocks.params, blocks.grad, lr=0.1, grad_scale=0.5, l2=l2)
        results.append(blocks.params)
    assert_array_equal(*results)


def test_state_only_with_momentum(make_blocks):
    blocks = make_blocks()
    for momentum, names in ((0.0, []), (0.5, ["velocity"])):
        sgd = SGD(lr=0.1, momentum=momentum)
        sgd.allocate(blocks.layout, blocks.ops)
        assert list(sgd.state) == names


def test_an_empty_layout(make_blocks):
    sgd = SGD(lr=0.1, momentum=0.9)
    sgd.allocate(Layout([Tensor("none", (0, 3))], "float32"), make_blocks().ops)
    none = np.zeros(0, dtype=np.float32)
    assert sgd.update(none, none, lr=0.1, grad_scale=1.0, l2=0.1, clip_norm=1.0) == 0


@pytest.mark.parametrize(
    "bad",
    [
        dict(lr=0.0),
        dict(lr=-1.0),
        dict(lr=np.inf),
        dict(lr=np.nan),
        dict(momentum=1.0),
        dict(momentum=-0.1),
        dict(nesterov=True),
        dict(weight_decay=-0.1),
        dict(weight_decay=np.nan),
    ],
)
def test_rejects(bad):
    with pytest.raises(ValueError, match="must be .*, got"):
        SGD(**dict(lr=0.1) | bad)
