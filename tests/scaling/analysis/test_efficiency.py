"""Intervals of the efficiency, from launches that differ by planted amounts."""

import numpy as np
import pytest
from studies import make_study

from pympi_train.scaling.analysis import efficiency
from pympi_train.scaling.analysis.points import PARTS, series_of
from pympi_train.scaling.report.words import explain

STEP_S = {1: 1.0, 2: 0.625}  # an efficiency of 80 %


def planted(rng, repeats, noise=0.03):
    """A study whose launches differ by ``noise``, and their steps by as much."""
    study = make_study(ranks=(1, 2), repeats=repeats, steps=20)
    for one in study["measurements"]:
        launch_s = STEP_S[one["ranks"]] * (1 + noise * rng.standard_normal())
        steps_s = launch_s * (1 + noise * rng.standard_normal(20))
        one["step_s"] = steps_s.tolist()
        none = [0.0] * one["ranks"]
        one["parts_s"] = dict.fromkeys(PARTS, none)
        one["parts_s"]["compute"] = [steps_s.mean()] * one["ranks"]
    return study


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_intervals_of_few_launches_hold(monkeypatch, repeats):
    monkeypatch.setattr(efficiency, "N_DRAWS", 300)
    rng, n_right, n = np.random.default_rng(7), 0, 80
    for _ in range(n):
        (series,) = series_of(planted(rng, repeats))
        found = efficiency.efficiencies(series)[1]
        assert found.low <= found.value <= found.high
        n_right += found.low <= 0.8 <= found.high
    assert n_right >= 0.94 * n


def test_one_launch_says_nothing_of_others():
    words = " ".join(explain(series_of(planted(np.random.default_rng(0), 1))))
    assert "One launch does not show how much launches differ" in words
    words = " ".join(explain(series_of(planted(np.random.default_rng(0), 2))))
    assert "One launch" not in words
