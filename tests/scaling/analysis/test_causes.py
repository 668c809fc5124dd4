"""Planted causes are found, and the losses add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import make_study

from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.fits import amdahl, gustafson
from pympi_train.scaling.analysis.losses import losses_of
from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.analysis.stragglers import slowest_rank
from pympi_train.scaling.report.words import explain

BOTH = {"modes": ("strong", "weak")}
PLANTED = {
    "imbalance": ({"slow": (5, 1.5)}, "Rank 5 on node 1 needs 1.50 times"),
    "transfer": ({"link_s": 3e-3}, 'compression = "int8"'),
    "update": ({"update_s": 3e-3}, 'strategy = "sharded"'),
    "input": ({"input_s": 3e-3}, "convert the files to .npy"),
    "contention": ({"contention": 0.4, **BOTH}, "fewer ranks on each node"),
    "small batches": ({"call_s": 2e-3, **BOTH}, "a global batch 4 times as large"),
    "computing": ({"call_s": 2e-3}, "a study with --mode both tells"),
}


def strong_of(study):
    found = series_of(study)
    strong = next(one for one in found if one.mode == "strong")
    weak = next((one for one in found if one.mode == "weak"), None)
    return strong, weak


@pytest.mark.parametrize("cause", PLANTED)
def test_planted_cause_is_named(cause):
    how, words = PLANTED[cause]
    study = make_study(**how)
    strong, weak = strong_of(study)
    losses = losses_of(strong, strong.points[-1], weak)
    assert losses.largest == cause
    assert words in " ".join(explain(series_of(study)))


def test_time_of_a_slow_rank_is_imbalance_alone():
    (one,) = series_of(make_study(slow=(5, 1.5), update_s=0.0))
    losses = losses_of(one, one.points[-1])
    assert losses.by_cause["imbalance"] == pytest.approx(1 / 3, abs=0.02)
    assert abs(losses.by_cause["computing"]) < 0.01


def test_nothing_lost():
    study = make_study(update_s=0.0, ranks=(1, 2))
    text = " ".join(explain(series_of(study)))
    assert "2 ranks the efficiency is 99 %" in text or "is 100 %" in text
    assert "No change of the configuration would gain much" in text
    one = explain(series_of(make_study(ranks=(4,))))
    assert one == ["Only one number of ranks was measured, so nothing can be compared."]


@given(
    seconds=st.lists(st.floats(0, 1e-2), min_size=5, max_size=5),
    slow=st.integers(0, 7),
    mode=st.sampled_from(["strong", "weak"]),
)
def test_losses_are_the_whole_loss(seconds, slow, mode):
    names = ("latency_s", "link_s", "update_s", "input_s", "call_s")
    study = make_study(
        modes=(mode,), slow=(slow, 1.3), repeats=2, steps=4, **dict(zip(names, seconds))
    )
    (one,) = series_of(study)
    for point, value in zip(one.points, efficiencies(one)):
        losses = losses_of(one, point)
        assert losses.total == pytest.approx(1 - value.value, abs=1e-9)
        assert value.low <= value.value * 1.05 and value.high >= value.value * 0.95


def test_interval_is_wider_when_launches_differ():
    calm, noisy = make_study(ranks=(1, 2)), make_study(ranks=(1, 2))
    for i, one in enumerate(noisy["measurements"]):
        for name, values in one["parts_s"].items():
            one["parts_s"][name] = [s * (1 + 0.2 * (i % 3)) for s in values]
    widths = []
    for study in (calm, noisy):
        value = efficiencies(series_of(study)[0])[1]
        widths.append(value.high - value.low)
    assert widths[1] > 3 * widths[0]


@given(
    share=st.floats(0, 1),
    scale=st.floats(1e-6, 1e3),
    ranks=st.sets(st.integers(1, 1000), min_size=2, max_size=6),
)
def test_serial_fractions_are_recovered(share, scale, ranks):
    p = np.array(sorted(ranks), float)
    found = amdahl(p, scale * (share + (1 - share) / p))
    assert found == pytest.approx(share, abs=1e-6)
    first = p / p[0]  # the laws compare with the smallest number of ranks
    values = (first - share * (first - 1)) / first
    assert gustafson(first, values) == pytest.approx(share, abs=1e-6)


def test_stragglers():
    def found(**how):
        return slowest_rank(series_of(make_study(**how))[0].points[-1])

    assert found() is None  # the ranks are late in turn
    alone = found(slow=(3, 2.0))
    assert (alone.rank, alone.node, alone.part) == (3, 0, "compute")
    assert not alone.is_node and alone.times == pytest.approx(2.0, rel=0.1)
    study = make_study()
    for one in study["measurements"]:
        if one["ranks"] == 8:
            parts = one["parts_s"]
            parts["input"] = [0.0] * 4 + [5e-3] * 4
    node = slowest_rank(series_of(study)[0].points[-1])
    assert node.is_node and (node.node, node.part) == (1, "input")


def test_node_of_a_straggler_has_its_name_if_it_is_the_same_in_all_repeats():
    study = make_study(slow=(5, 1.5))
    for one in study["measurements"]:
        one["node_names"] = ["n1", "n2"]
    assert "Rank 5 on node 1 (n2) needs 1.50" in " ".join(explain(series_of(study)))
    study["measurements"][-1]["node_names"] = ["n1", "n3"]
    assert "Rank 5 on node 1 needs 1.50" in " ".join(explain(series_of(study)))


def test_oversubscribed_counts_are_left_out_of_fits():
    study = make_study(oversubscribed=(8,), slow=(7, 9.0))
    (one,) = series_of(study)
    assert [p.ranks for p in one.fitted] == [1, 2, 4]
    assert "On 4 ranks" in explain([one])[0]
    only = make_study(ranks=(1, 8), oversubscribed=(8,))
    assert "more ranks than cores" in " ".join(explain(series_of(only)))
