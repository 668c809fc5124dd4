import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.optim.adam import Adam, AdamW


def reference(p, grads, lr, b1, b2, eps, coupled=0.0, decoupled=0.0):
    """Algorithm 1 of Kingma & Ba line by line, in float64, with both decays."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, start=1):
        g = g + coupled * p
        p = p - lr * decoupled * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype, atol", [("float32", 5e-6), ("float64", 1e-13)])
def test_matches_algorithm_1_in_float64(make_blocks, kind, weight_decay, dtype, atol):
    blocks = make_blocks(dtype)
    adam = kind(lr=1e-2, betas=(0.8, 0.99), eps=1e-3, weight_decay=weight_decay)
    adam.allocate(blocks.layout, blocks.ops)
    start = blocks.params.astype(np.float64)
    grads = np.random.default_rng(1).standard_normal((50, start.size))
    grads *= blocks.is_tensor
    for g in grads:
        blocks.grad[:] = 8 * g
        adam.update(blocks.params, blocks.grad, lr=1e-2, grad_scale=1 / 8, l2=0.0)
    name = "decoupled" if kind is AdamW else "coupled"
    decay = {name: weight_decay * blocks.is_weight}
    want = reference(start, grads, 1e-2, 0.8, 0.99, 1e-3, **decay)
    assert_allclose(blocks.params, want, rtol=0, atol=atol)
    assert adam.step == 50


def test_l2_is_coupled_even_in_adamw(make_blocks):
    results = []
    for adam, l2 in (
        (Adam(weight_decay=0.3), 0.0),
        (AdamW(weight_decay=0.0), 0.3),
    ):
        blocks = make_blocks()
        adam.allocate(blocks.layout, blocks.ops)
        for _ in range(3):
            adam.update(blocks.params, blocks.grad, lr=0.1, grad_scale=1.0, l2=l2)
        results.append(blocks.params)
    assert_array_equal(*results)


def test_the_step_size_given_is_the_one_used(make_blocks):
    blocks = make_blocks()
    before = blocks.params.copy()
    adamw = AdamW(lr=1.0)
    adamw.allocate(blocks.layout, blocks.ops)
    adamw.update(blocks.params, blocks.grad, lr=0.0, grad_scale=1.0, l2=0.0)
    assert_array_equal(blocks.params, before)


def test_a_restored_state_goes_on_alike(make_blocks):
    through, resumed = make_blocks(), make_blocks()
    adam = Adam(lr=0.1)
    adam.allocate(through.layout, through.ops)
    for _ in range(3):
        adam.update(through.params, through.grad, lr=0.1, grad_scale=1.0, l2=0.2)
    later = Adam(lr=0.1)
    later.allocate(resumed.layout, resumed.ops)
    for name, block in adam.state.items():
        later.state[name][:] = block
    later.step, resumed.params[:] = adam.step, through.params
    for optimizer, blocks in ((adam, through), (later, resumed)):
        optimizer.update(blocks.params, blocks.grad, lr=0.1, grad_scale=1.0, l2=0.2)
    assert_array_equal(through.params, resumed.params)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize(
    "bad",
    [
        dict(lr=0),
        dict(betas=(0.9, 1.0)),
        dict(betas=(-0.1, 0.9)),
        dict(betas=(0.9,)),
        dict(eps=0.0),
        dict(weight_decay=-1.0),
    ],
)
def test_rejects(kind, bad):
    with pytest.raises(ValueError, match="must be .*, got"):
        kind(**bad)
