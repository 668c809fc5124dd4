"""Planted causes are found, and the losses add up."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import ROW_S, make_study

from pympi_train.scaling.analysis.advice import INT8, LARGER, OTHERS, SHARDED, advise
from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.fits import amdahl, gustafson
from pympi_train.scaling.analysis.losses import losses_of
from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.analysis.stragglers import slowest_rank
from pympi_train.scaling.report.words import explain, references

MODES = ("strong", "weak")
BOTH = {"modes": MODES}
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


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("latency_s", [0.0, 2e-4])
def test_the_gain_of_repairing_a_slow_rank_is_known(n, latency_s):
    """A rank that takes twice as long holds up all: also one of two ranks."""
    how = {"ranks": (1, n), "update_s": 0.0, "latency_s": latency_s}
    (slow,) = series_of(make_study(slow=(1, 2.0), **how))
    (repaired,) = series_of(make_study(**how))
    point, losses = slow.points[-1], losses_of(slow, slow.points[-1])
    assert losses.largest == "imbalance"
    assert abs(losses.by_cause["computing"]) < 0.01
    advice = advise(slow, point, losses)
    assert advice.change.startswith("exclude or repair rank 1 on node 0")
    assert advice.times == pytest.approx(
        point.step_s / repaired.points[-1].step_s, rel=0.03
    )


def test_the_gain_of_a_quiet_machine_is_all_waiting():
    (one,) = series_of(make_study(ranks=(1, 4), update_s=0.0))
    point, late_s = one.points[-1], 3e-3
    for k in range(3):  # another rank in each repeat
        waits_s, work_s = point.parts_s["wait"][k], point.parts_s["compute"][k]
        waits_s[:], work_s[k] = late_s, work_s[k] + late_s
        waits_s[k] = 0.0
    advice = advise(one, point, losses_of(one, point))
    assert advice.change == OTHERS
    left_s = point.step_s - 0.75 * late_s
    assert advice.times == pytest.approx(point.step_s / left_s, rel=1e-6)


def test_the_gain_of_repairing_a_rank_is_at_most_its_extra_work():
    """The others also wait for one another: without the rank they still do."""
    (one,) = series_of(make_study(ranks=(1, 4), slow=(1, 1.2), update_s=0.0))
    point, late_s = one.points[-1], 5e-3
    excess_s = slowest_rank(point).excess_s
    assert excess_s == pytest.approx(0.2 * 1024 * ROW_S / 4, rel=0.05)
    point.parts_s["wait"][:] += late_s
    advice = advise(one, point, losses_of(one, point))
    assert advice.change.startswith("exclude or repair rank 1 on node 0")
    left_s = point.step_s - excess_s
    assert advice.times == pytest.approx(point.step_s / left_s, rel=0.05)


def test_the_gain_of_a_larger_batch_is_known():
    how = {"ranks": (1, 2, 8), "call_s": 2e-3, "update_s": 0.0, "modes": MODES}
    strong, weak = strong_of(make_study(**how))
    point = strong.points[-1]
    advice = advise(strong, point, losses_of(strong, point, weak))
    assert advice.change == LARGER
    work_s = 1024 * ROW_S / 8
    truth = (work_s + 2e-3) / (work_s + 2e-3 / 4)
    assert advice.times == pytest.approx(truth, rel=0.02)


def test_nothing_lost():
    study = make_study(update_s=0.0, ranks=(1, 2))
    text = " ".join(explain(series_of(study)))
    assert "2 ranks the efficiency is 99 %" in text or "is 100 %" in text
    # Not that none would gain: one rank may wait for rows as long as two do.
    assert "Little is lost, so no change of the configuration is proposed." in text
    one = explain(series_of(make_study(ranks=(4,))))
    assert one == ["Only one number of ranks was measured, so nothing can be compared."]
    assert explain([]) == ["No launch has succeeded, so there is nothing to compare."]


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
    # Nobody waits for them, as `tracetools.straggler.find_straggler` would say too.
    assert slowest_rank(series_of(study)[0].points[-1]) is None
    for one in study["measurements"]:
        if one["ranks"] == 8:
            one["parts_s"]["wait"] = [5e-3] * 4 + [0.0] * 4
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


def test_noise_is_told():
    calm, noisy = make_study(ranks=(1, 2)), make_study(ranks=(1, 2))
    for i, one in enumerate(noisy["measurements"]):
        one["parts_s"]["wait"] = [2e-2 * (i % 3) for _ in one["parts_s"]["wait"]]
    words = "differ too much for a judgement"
    assert words not in " ".join(explain(series_of(calm)))
    assert words in " ".join(explain(series_of(noisy)))


def test_what_takes_less_time_is_named():
    study = make_study(ranks=(1, 2))
    for one in study["measurements"]:
        if one["ranks"] == 1:
            one["parts_s"]["input"] = [5e-3]
    text = " ".join(explain(series_of(study)))
    assert re.search(r"less time than on 1 rank: \d+ % \(waiting for rows\)", text)


def test_larger_batches_are_no_advice_where_a_step_takes_all_rows():
    study = make_study(call_s=2e-3)
    assert "4 times as large" in " ".join(explain(series_of(study)))
    for one in study["measurements"]:
        one["full_batch"] = True
    assert "4 times as large" not in " ".join(explain(series_of(study)))


def test_strategies_are_compared_and_the_fastest_is_explained():
    study = make_study(ranks=(1, 2), link_s=0.0)
    more = [("sharded", {"update_s": 9e-3}), ("local", {"update_s": 0.0})]
    for name, how in more:
        for one in make_study(ranks=(1, 2), **how)["measurements"]:
            study["measurements"].append({**one, "strategy": name})
    text = " ".join(explain(series_of(study)))
    assert "strong scaling, strategy allreduce" in text
    assert re.search(
        r"the fastest first: local [\d,]+ \(another result\), allreduce [\d,]+, "
        r"sharded [\d,]+\.",
        text,
    )


def with_strategies(study, **strategies):
    """Add planted studies of other strategies."""
    study = {**study, "measurements": list(study["measurements"])}
    for name, how in strategies.items():
        for one in make_study(**how)["measurements"]:
            study["measurements"].append({**one, "strategy": name})
    return study


@pytest.mark.parametrize("mode", ["strong", "weak"])
def test_strategies_are_compared_with_one_rank_of_allreduce(mode):
    """A server and its only worker are no faster than one rank, and waste the other."""
    how = {"modes": (mode,), "ranks": (2, 4), "update_s": 0.0}
    study = make_study(modes=(mode,), ranks=(1, 2), update_s=0.0)
    study = with_strategies(study, server=how, sharded={**how, "ranks": (1, 2)})
    for one in study["measurements"]:
        if one["strategy"] == "server":
            one["parts_s"] = {
                name: [seconds[0] * one["ranks"] / (one["ranks"] - 1)]
                for name, seconds in one["parts_s"].items()
            }
    found = {one.strategy: one for one in series_of(study)}
    assert {one.base_strategy for one in found.values()} == {"allreduce"}
    values = {name: efficiencies(one) for name, one in found.items()}
    assert values["server"][0].value == pytest.approx(1 / 2, abs=0.02)
    assert values["server"][0].speedup == pytest.approx(1, abs=0.04)
    assert values["server"][1].value == pytest.approx(3 / 4, abs=0.03)
    assert values["sharded"][0].value == pytest.approx(1, abs=0.02)
    for point, value in zip(found["server"].points, values["server"]):
        total = losses_of(found["server"], point).total
        assert total == pytest.approx(1 - value.value, abs=1e-9)
    assert references(list(found.values())) == (
        "Speed-up and efficiency of all strategies are relative to allreduce on 1 rank."
    )
    assert references(series_of(make_study())) == ""


def test_times_as_fast_as_several_ranks():
    text = explain(series_of(make_study(ranks=(2, 8), update_s=0.0)))[0]
    assert re.search(r": (3\.9\d|4\.0\d) times as fast as 2 ranks are\.", text), text


@pytest.mark.parametrize(
    "how, key", [({"link_s": 3e-3}, INT8), ({"update_s": 3e-3}, SHARDED)]
)
def test_what_the_configuration_refuses_is_no_advice(how, key):
    study = make_study(**how)
    assert key in " ".join(explain(series_of(study)))
    study["refused"] = {"allreduce": [key]}
    text = " ".join(explain(series_of(study)))
    assert key not in text and "What would gain most" in text


def spread_study():
    """Return a study whose last repeat has each rank on a node of its own."""
    study = make_study()
    other = make_study(ranks=(2, 4), repeats=1, per_node=1, link_s=2e-3)["measurements"]
    study["measurements"] += [{**one, "repeat": 3} for one in other]
    return study


def test_ranks_on_one_node_and_on_several_are_different_points():
    (one,) = series_of(spread_study())
    places = [(p.ranks, p.nodes, len(p.steps_s)) for p in one.points]
    assert places == [(1, 1, 3), (2, 1, 3), (2, 2, 1), (4, 1, 3), (4, 4, 1), (8, 2, 3)]
    assert [(p.ranks, p.nodes) for p in one.spread] == [(2, 2), (4, 4)]
    losses = [losses_of(one, p).by_cause["transfer"] for p in one.points[3:5]]
    assert losses[0] == 0 and losses[1] > 0.3
    (plain,) = series_of(make_study())
    assert [p.step_s for p in one.packed] == [p.step_s for p in plain.points]
    assert explain([one]) == explain([plain])  # the fits do not mix them
    assert "On 8 ranks (2 nodes) the" in explain([one])[0]


def test_strategies_are_compared_on_equal_nodes():
    study = make_study(ranks=(1, 4))
    for name in ("allreduce", "sharded"):
        for one in make_study(ranks=(1, 4), per_node=1)["measurements"]:
            study["measurements"].append({**one, "strategy": name})
    text = " ".join(explain(series_of(study)))
    (told,) = re.findall("Rows a second by strategy[^.]*", text)
    assert told.count("allreduce") == told.count("sharded") == 1


def test_contention_is_that_of_as_many_ranks_on_a_node():
    how = {"contention": 0.4, "repeats": 1, "ranks": (1, 4)}
    study = make_study(modes=("strong", "weak"), **how)
    apart = make_study(per_node=1, **how)["measurements"]
    study["measurements"] += [one for one in apart if one["ranks"] == 4]
    strong, weak = strong_of(study)
    packed, spread = (losses_of(strong, p, weak) for p in strong.points[1:])
    assert packed.by_cause["contention"] > 0.4
    assert "contention" not in spread.by_cause  # its weak study has no such point


@pytest.mark.parametrize("mode, law", [("strong", "Amdahl"), ("weak", "Gustafson")])
def test_waiting_is_not_serial(mode, law):
    study = make_study(modes=(mode,), update_s=0.0)
    for one in study["measurements"]:
        n = one["ranks"]
        waits_s = [1e-3 * (n > 1) * (rank > 0) for rank in range(n)]
        one["parts_s"]["wait"] = waits_s
    text = explain(series_of(study))[-1]
    assert law in text and "waiting for the slowest rank left out" in text
    share = 0.0 if "nothing" in text else float(re.search(r"([\d.]+) % of", text)[1])
    assert share < 1.0


def test_a_small_serial_part_is_told_where_it_costs_something():
    """At 96 ranks, a thousandth of the work takes 8 % of a step."""
    text = explain(series_of(make_study(ranks=(1, 8, 96), update_s=9.2e-6)))[-1]
    assert "By Amdahl's law 0.09 % of the work is serial" in text


def test_batches_with_fewer_rows_than_ranks_are_told():
    study = make_study(ranks=(1, 4))
    for one in study["measurements"]:
        one["batch_size"] = 3
    text = " ".join(explain(series_of(study)))
    assert "A batch of 3 rows is too small for 4 ranks" in text
    assert "too small for" not in " ".join(explain(series_of(make_study())))


@pytest.mark.parametrize("first", [1, 2, 8])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_serial_part_of_a_weak_study_from_any_number_of_ranks(first, share):
    ranks = np.array([1, 2, 8]) * first
    efficiency = 1 - share * (ranks - 1) / ranks
    found = gustafson(ranks, efficiency / efficiency[0])
    assert found == pytest.approx(share, abs=1e-9)
    assert gustafson(ranks, [1.0, 1.1, 1.2]) == 0.0
