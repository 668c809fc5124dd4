import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.optim.adagrad import AdaGrad


def reference(p, grads, lr, eps, coupled=0.0):
    """torch.optim.Adagrad line by line, in float64."""
    sums = np.zeros_like(p)
    for g in grads:
        g = g + coupled * p
        sums += g * g
        p = p - lr * g / (np.sqrt(sums) + eps)
    return p


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype, atol", [("float32", 5e-6), ("float64", 1e-13)])
def test_matches_the_formula_in_float64(make_blocks, weight_decay, dtype, atol):
    blocks = make_blocks(dtype)
    adagrad = AdaGrad(lr=0.3, eps=1e-3, weight_decay=weight_decay)
    adagrad.allocate(blocks.layout, blocks.ops)
    start = blocks.params.astype(np.float64)
    grads = np.random.default_rng(1).standard_normal((50, start.size))
    grads *= blocks.is_tensor
    for g in grads:
        blocks.grad[:] = 8 * g
        adagrad.update(blocks.params, blocks.grad, lr=0.3, grad_scale=1 / 8, l2=0.0)
    want = reference(start, grads, 0.3, 1e-3, weight_decay * blocks.is_weight)
    assert_allclose(blocks.params, want, rtol=0, atol=atol)
    assert adagrad.step == 50


def test_a_constant_gradient_takes_steps_that_fall_with_the_root(make_blocks):
    blocks = make_blocks()
    adagrad = AdaGrad(lr=0.5)
    adagrad.allocate(blocks.layout, blocks.ops)
    start = blocks.params.copy()
    blocks.grad[:] = 1.0
    for _ in range(9):
        adagrad.update(blocks.params, blocks.grad, lr=0.5, grad_scale=1.0, l2=0.0)
    steps = 0.5 * sum(1 / np.sqrt(t) for t in range(1, 10))
    assert_allclose(start - blocks.params, steps, rtol=1e-7)


def test_a_gradient_of_zero_changes_no_bit(make_blocks):
    blocks = make_blocks("float32")
    adagrad = AdaGrad()
    adagrad.allocate(blocks.layout, blocks.ops)
    before = blocks.params.copy()
    blocks.grad[:] = 0
    adagrad.update(blocks.params, blocks.grad, lr=0.1, grad_scale=0.1, l2=0.0)
    assert_array_equal(blocks.params, before)


@pytest.mark.parametrize("eps", [0.0, 1.0, -1e-8])
def test_eps_is_checked(eps):
    with pytest.raises(ValueError, match="eps must be in"):
        AdaGrad(eps=eps)
