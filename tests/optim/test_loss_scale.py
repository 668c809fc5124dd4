"""The scale of the loss: powers of two, halved once for each scale that overflowed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.optim import loss_scale
from pympi_train.optim.loss_scale import LossScale


@given(st.integers(1, 2**40))
def test_starts_at_a_power_of_two_over_the_batch(batch_size):
    value = LossScale(batch_size).value
    assert math.frexp(value)[0] == 0.5
    assert value <= loss_scale.START / batch_size or value == loss_scale.LEAST
    assert 2 * value > loss_scale.START / batch_size


def test_starts_lower_for_a_larger_batch_alone():
    scale = LossScale(64)
    scale.expect(32)
    assert scale.value == LossScale(64).value
    scale.overflowed(scale.value)
    scale.expect(64)
    assert scale.value == LossScale(128).value
    scale.expect(1000)
    assert scale.value == LossScale(1000).value


def test_is_halved_once_for_steps_that_used_the_same_scale():
    scale = LossScale(1)
    start = scale.value
    assert scale.overflowed(start) and scale.overflowed(start)
    assert (scale.value, scale.skipped) == (start / 2, 2)
    assert scale.overflowed(start / 2)
    assert scale.value == start / 4


def test_is_doubled_after_a_while_without_overflow(monkeypatch):
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    scale = LossScale(1)
    start = scale.value
    for _ in range(2):
        scale.fitted()
    scale.overflowed(start)
    for _ in range(2):
        scale.fitted()
    assert scale.value == start / 2
    scale.fitted()
    assert scale.value == start


def test_ends_at_its_bounds(monkeypatch):
    monkeypatch.setattr(loss_scale, "PATIENCE", 1)
    scale = LossScale(1)
    for _ in range(100):
        scale.fitted()
    assert scale.value == loss_scale.MOST
    while scale.overflowed(scale.value):
        assert scale.value >= loss_scale.LEAST


@pytest.mark.parametrize("batch_size", [1, 64, 100])
def test_dividing_by_it_again_loses_nothing(batch_size):
    value = LossScale(batch_size).value
    assert 0.1 * value / value == 0.1
