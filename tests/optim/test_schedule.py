import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi_train.optim.schedule import Constant, Cosine, StepDecay

fractions = st.floats(0, 1)
warmups = st.floats(0, 5)
steps = st.integers(1, 40)
schedules = st.one_of(
    st.builds(Constant, warmup_epochs=warmups),
    st.builds(
        StepDecay,
        step_epochs=st.integers(1, 5),
        gamma=st.floats(0.01, 1),
        warmup_epochs=warmups,
    ),
    st.builds(Cosine, floor=fractions, warmup_epochs=warmups),
)


def factors(schedule, n, steps_per_epoch=1):
    return [
        schedule.factor(t, steps_per_epoch=steps_per_epoch, total_updates=n)
        for t in range(n)
    ]


@settings(deadline=None)
@given(schedules, steps, st.integers(1, 8))
def test_within_0_and_1(schedule, steps_per_epoch, epochs):
    values = factors(schedule, steps_per_epoch * epochs, steps_per_epoch)
    assert all(0 <= value <= 1 for value in values)


@settings(deadline=None)
@given(schedules, steps, st.integers(6, 9))
def test_rises_to_the_end_of_the_warmup_and_never_after(schedule, per_epoch, epochs):
    values = factors(schedule, per_epoch * epochs, per_epoch)
    n_warmup = round(schedule.warmup_epochs * per_epoch)
    after = values[n_warmup:]
    assert all(a >= b for a, b in zip(after, after[1:]))
    if not isinstance(schedule, StepDecay):  # whose falls may lie within the warm-up
        assert values[n_warmup] == 1
        rises = [b - a for a, b in zip([0.0, *values], values[: n_warmup + 1])]
        assert rises == pytest.approx([1 / (n_warmup + 1)] * len(rises))


@settings(deadline=None)
@given(fractions, warmups, steps)
def test_cosine_ends_at_its_floor_and_stays(floor, warmup_epochs, per_epoch):
    schedule = Cosine(floor=floor, warmup_epochs=warmup_epochs)
    n = round(warmup_epochs * per_epoch) + 2
    for t in (n - 1, n, n + 7):
        got = schedule.factor(t, steps_per_epoch=per_epoch, total_updates=n)
        assert got == pytest.approx(floor, abs=1e-15)


def test_exact_values():
    assert factors(Constant(), 3) == [1, 1, 1]
    assert factors(Constant(warmup_epochs=1.5), 5, 2) == [0.25, 0.5, 0.75, 1, 1]
    assert factors(StepDecay(2, gamma=0.5), 6, 1) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert factors(StepDecay(1, gamma=0.5), 6, 3) == [1, 1, 1, 0.5, 0.5, 0.5]
    assert factors(StepDecay(1, gamma=0.5, warmup_epochs=3), 5) == pytest.approx(
        [0.25, 0.25, 0.1875, 0.125, 0.0625]
    )
    assert factors(Cosine(floor=0.5), 5) == pytest.approx(
        [0.75 + 0.25 * math.cos(math.pi * t / 4) for t in range(5)]
    )
    assert factors(Cosine(warmup_epochs=1), 4) == pytest.approx([0.5, 1, 0.5, 0])


def test_warmup_longer_than_the_training():
    assert factors(Cosine(warmup_epochs=4), 3) == pytest.approx([0.2, 0.4, 0.6])
    assert factors(Cosine(), 1) == [1]


@pytest.mark.parametrize(
    "kind, bad",
    [
        (Constant, dict(warmup_epochs=-1)),
        (Constant, dict(warmup_epochs=math.nan)),
        (StepDecay, dict(step_epochs=0)),
        (StepDecay, dict(step_epochs=1.5)),
        (StepDecay, dict(step_epochs=1, gamma=0)),
        (StepDecay, dict(step_epochs=1, gamma=1.1)),
        (Cosine, dict(floor=-0.1)),
        (Cosine, dict(floor=1.1)),
    ],
)
def test_rejects(kind, bad):
    with pytest.raises(ValueError, match="must be .*, got"):
        kind(**bad)
