"""What all optimizers share: runs, clipping, one call in the common case."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.errors import DivergenceError
from pympi_train.flat.parts import Part
from pympi_train.optim.adagrad import AdaGrad
from pympi_train.optim.adam import Adam, AdamW
from pympi_train.optim.sgd import GD, SGD

OPTIMIZERS = [
    lambda: GD(lr=0.1),
    lambda: SGD(lr=0.1),
    lambda: SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda: Adam(lr=0.1),
    lambda: Adam(lr=0.1, weight_decay=0.1),
    lambda: AdamW(lr=0.1, weight_decay=0.1),
    lambda: AdaGrad(lr=0.1),
    lambda: AdaGrad(lr=0.1, weight_decay=0.1),
]
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS)


def update(optimizer, blocks, **changes):
    """Update with plain arguments, but for ``changes``."""
    arguments = dict(lr=optimizer.lr, grad_scale=0.25, l2=0.0) | changes
    return optimizer.update(blocks.params, blocks.grad, **arguments)


def allocated(make, blocks):
    optimizer = make()
    optimizer.allocate(blocks.layout, blocks.ops)
    return optimizer


@pytest.mark.parametrize("make", [OPTIMIZERS[i] for i in (0, 1, 3)])
def test_no_penalty_is_one_call_over_the_block(make, make_blocks):
    blocks = make_blocks()
    optimizer = allocated(make, blocks)
    blocks.ops.calls.clear()
    update(optimizer, blocks)
    assert len(blocks.ops.calls) == 1


@every_optimizer
@pytest.mark.parametrize("l2", [0.0, 0.5])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_runs_equal_an_update_tensor_by_tensor(make, make_blocks, l2, clip_norm):
    blocks, parts = make_blocks(), make_blocks()
    whole = allocated(make, blocks)
    starts = blocks.layout.offsets + (blocks.layout.size,)
    single = [make() for _ in blocks.layout.tensors]
    for one, *piece in zip(single, starts, starts[1:]):
        one.allocate(Part(blocks.layout, [piece]), numpy_ops)
    for _ in range(3):
        norm = update(whole, blocks, l2=l2, clip_norm=clip_norm)
        factor = 1.0 if norm is None else min(1.0, clip_norm / norm)
        for one, *piece in zip(single, starts, starts[1:]):
            part = slice(*piece)
            scales = {"grad_scale": 0.25 * factor, "l2": l2 * factor}
            one.update(parts.params[part], parts.grad[part], lr=one.lr, **scales)
    assert_array_equal(blocks.params, parts.params)


@every_optimizer
def test_penalties_leave_biases_alone(make, make_blocks):
    blocks, plain = make_blocks(), make_blocks()
    update(allocated(make, blocks), blocks, l2=0.5)
    bare = allocated(make, plain)
    bare._coupled = bare._decay = 0.0
    update(bare, plain)
    changed = blocks.params != plain.params
    assert not changed[~blocks.is_weight].any()
    if not isinstance(bare, Adam):  # whose first step hardly feels the size of g
        assert changed[blocks.is_weight].all()


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_stays_zero(make, make_blocks, dtype):
    blocks = make_blocks(dtype)
    optimizer = allocated(make, blocks)
    for _ in range(3):
        update(optimizer, blocks, l2=0.5, clip_norm=0.1)
    for block in (blocks.params, *optimizer.state.values()):
        assert block.dtype == dtype
        assert not block[~blocks.is_tensor].any()
        assert block[blocks.is_tensor].all()


@every_optimizer
def test_the_gradient_is_not_changed(make, make_blocks):
    blocks = make_blocks()
    before = blocks.grad.copy()
    update(allocated(make, blocks), blocks, l2=0.5, clip_norm=0.1)
    assert_array_equal(blocks.grad, before)


@every_optimizer
@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_clipping_equals_scaling_the_gradient(make, make_blocks, l2):
    blocks, by_hand = make_blocks(), make_blocks()
    norm = update(allocated(make, blocks), blocks, l2=l2, clip_norm=0.5)

    mean = 0.25 * by_hand.grad + l2 * by_hand.params * by_hand.is_weight
    assert norm == pytest.approx(np.linalg.norm(mean), rel=1e-14)
    by_hand.grad[:] = 0.5 / np.linalg.norm(mean) * mean
    update(allocated(make, by_hand), by_hand, grad_scale=1.0)
    assert_allclose(blocks.params, by_hand.params, rtol=1e-13)


@every_optimizer
def test_a_norm_within_bounds_changes_nothing(make, make_blocks):
    blocks, free = make_blocks(), make_blocks()
    norm = update(allocated(make, blocks), blocks, l2=0.5, clip_norm=100.0)
    assert 0 < norm < 100
    assert update(allocated(make, free), free, l2=0.5) is None
    assert_array_equal(blocks.params, free.params)


@every_optimizer
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_changes_nothing(make, make_blocks, bad):
    blocks = make_blocks()
    optimizer = allocated(make, blocks)
    update(optimizer, blocks, clip_norm=1.0)
    before = [b.copy() for b in (blocks.params, *optimizer.state.values())]
    blocks.grad[3] = bad
    with pytest.raises(DivergenceError, match=f"{bad} at update 2"):
        update(optimizer, blocks, clip_norm=1.0)
    after = [blocks.params, *optimizer.state.values()]
    for want, got in zip(before, after):
        assert_array_equal(got, want)
    assert optimizer.step == 1


@every_optimizer
def test_allocate_starts_afresh(make, make_blocks):
    first, again = make_blocks(), make_blocks()
    optimizer = allocated(make, first)
    update(optimizer, first, l2=0.5)
    optimizer.allocate(again.layout, again.ops)
    assert optimizer.step == 0
    update(optimizer, again, l2=0.5)
    assert_array_equal(first.params, again.params)


def test_rejects_blocks_of_another_size(make_blocks):
    blocks = make_blocks()
    optimizer = allocated(OPTIMIZERS[3], blocks)
    with pytest.raises(ValueError, match=r"expected .* got \(5,\)"):
        optimizer.update(
            blocks.params[:5], blocks.grad, lr=1.0, grad_scale=1.0, l2=0.0
        )


def test_rejects_an_update_before_allocate(make_blocks):
    with pytest.raises(ValueError, match="call allocate"):
        update(SGD(lr=0.1), make_blocks())


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan])
def test_rejects_clip_norm(make_blocks, clip_norm):
    blocks = make_blocks()
    with pytest.raises(ValueError, match="clip_norm must be positive, got"):
        update(allocated(OPTIMIZERS[0], blocks), blocks, clip_norm=clip_norm)
