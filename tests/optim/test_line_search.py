import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pympi_train.optim.line_search import Point, _minimum_of_cubic, strong_wolfe

C1, C2 = 1e-4, 0.9
constants = st.sampled_from([(C1, C2), (0.4, 0.5)])


def recorded(f, slope):
    """``phi``, and the list that its calls go to."""
    calls = []

    def phi(step):
        calls.append(step)
        return f(step), slope(step)

    return phi, calls


@st.composite
def smooth_functions(draw):
    """Value and slope of a random wavy valley, bounded below, falling at 0."""
    size = st.floats(0.1, 3)
    minimum, width = draw(st.floats(1e-3, 1e3)), draw(size)
    heights = draw(st.lists(size, min_size=1, max_size=4))
    waves = [(h, draw(size), draw(st.floats(0, 6))) for h in heights]

    def f(x):
        x /= minimum
        valley = math.sqrt(1 + ((x - 1) / width) ** 2)
        return valley + 0.1 * sum(h * math.sin(k * x + p) for h, k, p in waves)

    def slope(x):
        x /= minimum
        valley = (x - 1) / width**2 / math.sqrt(1 + ((x - 1) / width) ** 2)
        waving = 0.1 * sum(h * k * math.cos(k * x + p) for h, k, p in waves)
        return (valley + waving) / minimum

    return f, slope


@settings(deadline=None)
@given(smooth_functions(), st.floats(1e-3, 1e3), constants)
def test_both_conditions_hold(function, first, c1_c2):
    (f, slope), (c1, c2) = function, c1_c2
    assume(slope(0) < -1e-3 * abs(f(0)))
    phi, calls = recorded(f, slope)
    start = Point(0.0, f(0), slope(0))
    found = strong_wolfe(phi, start, first, c1=c1, c2=c2, max_evaluations=60)
    step = found.point.step
    assert found.satisfied
    assert found.point == (step, f(step), slope(step))
    assert found.evaluations == len(calls) and calls[-1] == step > 0
    assert f(step) <= start.f + c1 * step * start.slope
    assert abs(slope(step)) <= c2 * abs(start.slope)


@settings(deadline=None)
@given(smooth_functions(), st.floats(1e-3, 1e3), st.integers(1, 6))
def test_cut_short_it_returns_the_best_point_seen(function, first, max_evaluations):
    f, slope = function
    assume(slope(0) < 0)
    phi, calls = recorded(f, slope)
    start = Point(0.0, f(0), slope(0))
    # So strict that no step will do.
    found = strong_wolfe(
        phi, start, first, c1=C1, c2=1e-300, max_evaluations=max_evaluations
    )
    assert not found.satisfied
    assert found.evaluations == len(calls) <= max_evaluations
    assert len(set(calls)) == len(calls)
    fit = [x for x in calls if f(x) <= start.f + C1 * x * start.slope]
    assert found.point.f == min([start.f] + [f(x) for x in fit])


def test_a_parabola_takes_its_first_trial_if_that_will_do():
    phi, calls = recorded(lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1))
    assert strong_wolfe(phi, Point(0.0, 1.0, -2.0), 1.5).satisfied
    assert calls == [1.5]


@pytest.mark.parametrize("first, n", [(0.02, 2), (1e-3, 4), (3.0, 2), (1000.0, 4)])
def test_a_parabola_from_too_short_and_too_long(first, n):
    phi, calls = recorded(lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1))
    found = strong_wolfe(phi, Point(0.0, 1.0, -2.0), first)
    assert found.satisfied and len(calls) <= n


def test_a_wall_that_no_cubic_fits_is_found_by_halving():
    def f(x):  # the cubic keeps falling for the gentle side
        return max(-x, 1000 * (x - 1e-3))

    phi, calls = recorded(f, lambda x: -1.0 if f(x) == -x else 1000.0)
    strong_wolfe(phi, Point(0.0, 0.0, -1.0), 1.0, max_evaluations=500)
    assert len(calls) < 75  # some 90 without


@pytest.mark.parametrize("wall", [math.inf, math.nan, -math.inf])
def test_a_value_that_is_not_finite_shortens_the_step(wall):
    def f(x):
        return -x if x < 1e-3 else wall

    phi, _ = recorded(f, lambda x: -1.0)
    found = strong_wolfe(phi, Point(0.0, 0.0, -1.0), 1.0)
    assert not found.satisfied  # this slope never flattens
    assert 0 < found.point.step < 1e-3
    assert found.evaluations == 20


def test_a_slope_that_is_not_finite_shortens_the_step():
    phi, _ = recorded(
        lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1) if x < 2 else math.nan
    )
    found = strong_wolfe(phi, Point(0.0, 1.0, -2.0), 50.0)
    assert found.satisfied and found.point.step < 2


def test_noise_lets_the_slope_decide():
    def phi(x):  # a parabola whose value is lost in rounding
        return 1.0 + 1e-13, 1e-11 * (x - 1)

    start = Point(0.0, 1.0, -1e-11)
    assert not strong_wolfe(phi, start, 1.0).satisfied
    found = strong_wolfe(phi, start, 1.0, noise=1e-12)
    assert found.satisfied and found.point.step == 1 and found.evaluations == 1


def test_ends_at_neighbouring_floats():
    phi, calls = recorded(lambda x: abs(x - 0.3), lambda x: 1.0 if x > 0.3 else -1.0)
    found = strong_wolfe(phi, Point(0.0, 0.3, -1.0), 1.0, max_evaluations=1000)
    assert not found.satisfied and found.point.step == pytest.approx(0.3, abs=1e-15)
    assert len(set(calls)) == len(calls) < 200


def test_gives_up_early_where_only_noise_is_left():
    phi, calls = recorded(lambda x: 1 + 1e-9, lambda x: 1.0)
    found = strong_wolfe(phi, Point(0.0, 1.0, -1e-13), 1.0, noise=1e-12)
    assert not found.satisfied and found.point.step == 0
    assert len(calls) == 1


def test_cubic_against_a_known_one():
    def point(x):  # x^3 - 3 x: minimum at 1, maximum at -1
        return Point(x, x**3 - 3 * x, 3 * x**2 - 3)

    for a, b in ((0.5, 2.0), (2.0, 0.5), (0.0, 0.9), (-0.5, 3.0)):
        assert _minimum_of_cubic(point(a), point(b)) == pytest.approx(1)
    line = [Point(x, -x, -1.0) for x in (0.0, 1.0)]
    assert not np.isfinite(_minimum_of_cubic(*line))
