"""Replays of recorded steps on simulated ranks."""

import numpy as np
import pytest

from pympi_train.errors import ConfigError, DataError
from pympi_train.scaling.simulation.networks import FatTree
from pympi_train.scaling.simulation.replay import (
    compute_times,
    replay_step,
    traced_times,
)
from pympi_train.scaling.simulation.strategies import STRATEGIES
from pympi_train.trace.chrome import END_OF_FILE, head_text, lane_text
from pympi_train.trace.events import KINDS
from pympi_train.trace.ring import SPAN

NETWORK = FatTree(ranks_per_node=4, nodes_per_group=4, taper=2.0)
EQUAL_S = np.array([0.01])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_is_its_parts_and_waits_only_for_unequal_ranks(strategy):
    same = replay_step(EQUAL_S, 10**6, NETWORK, 16, strategy)
    assert same.compute_s == pytest.approx(0.01)
    assert same.wait_s == pytest.approx(0, abs=1e-9)
    unequal = np.array([0.005, 0.015])
    other = replay_step(unequal, 10**6, NETWORK, 16, strategy)
    assert other.wait_s > 1e-3 and other.efficiency < same.efficiency
    parts = other.compute_s + other.transfer_s + other.wait_s
    assert other.step_s == pytest.approx(parts)


def test_more_ranks_wait_longer_and_other_networks_change_no_compute():
    times_s = np.random.default_rng(0).lognormal(-4, 0.2, 500)
    sizes = 4, 64, 1024
    found = [replay_step(times_s, 10**5, NETWORK, n, "allreduce") for n in sizes]
    assert found[0].wait_s < found[1].wait_s < found[2].wait_s
    slow = FatTree(ranks_per_node=4, nodes_per_group=4, bytes_per_s=1e8)
    slower = replay_step(times_s, 10**5, slow, 64, "allreduce")
    assert slower.compute_s == found[1].compute_s
    assert slower.transfer_s > found[1].transfer_s


def test_planted_work_of_the_program_itself_comes_back():
    less = replay_step(EQUAL_S, 10**4, NETWORK, 8, "sharded")
    more = replay_step(EQUAL_S, 10**4, NETWORK, 8, "sharded", own_s=0.002)
    assert more.step_s - less.step_s == pytest.approx(0.002)


def test_servers_and_local_steps_divide_the_transfer():
    one, four = (
        replay_step(
            EQUAL_S, 10**7, FatTree(1, 64), 32, "server", n_servers=n
        ).transfer_s
        for n in (1, 4)
    )
    assert four < one < 4.1 * four
    each, eighth = (
        replay_step(EQUAL_S, 10**7, NETWORK, 16, "local", period=n).transfer_s
        for n in (1, 8)
    )
    assert each == pytest.approx(8 * eighth)


def test_a_study_gives_its_largest_run_on_own_cores():
    runs = [
        {"ranks": 2, "gradient_bytes": 7, "compute_s": [[1.0, 2.0]]},
        {"ranks": 8, "gradient_bytes": 7, "compute_s": [[9.0]], "oversubscribed": True},
        {"ranks": 4, "error": "a rank died"},
    ]
    times_s, n_bytes = compute_times({"measurements": runs})
    assert (times_s.tolist(), n_bytes) == ([1.0, 2.0], 7)
    with pytest.raises(DataError, match="needs times of compute"):
        compute_times({"measurements": runs[2:]})
    runs[0]["compute_s"] = [[float("nan")]]
    with pytest.raises(DataError, match="positive numbers"):
        compute_times({"measurements": runs[:1]})


def test_a_trace_gives_the_work_of_each_step_but_the_first(tmp_path):
    path = tmp_path / "trace.json"
    rows = {0: [9, 2, 4], 1: [9, 3]}  # ms of forward, by rank and step
    text = head_text({"ranks": 2, "gradient_bytes": 40})
    lanes = []
    for rank, ms in rows.items():
        spans, now_s = [], 0.0
        for step, each in enumerate(ms, start=1):
            for kind, more_s in (("forward", each / 1e3), ("collective", 1.0)):
                row = KINDS.index(kind), kind, step, now_s, now_s + more_s
                spans.append(row)
                now_s += more_s
        lanes.append(lane_text(np.array(spans, SPAN), rank, 0, "a"))
    update = KINDS.index("update")  # of a server: no computing of a rank
    spans = [(update, "update", step, step, step + 0.5) for step in (1, 2, 3)]
    lanes.append(lane_text(np.array(spans, SPAN), 2, 0, "a", "server"))
    path.write_text(text + ",\n".join(lanes) + END_OF_FILE)
    times_s, n_bytes = traced_times(path)
    assert times_s == pytest.approx([0.002, 0.004, 0.003]) and n_bytes == 40
    path.write_text(head_text({"ranks": 2}) + ",\n".join(lanes) + END_OF_FILE)
    with pytest.raises(DataError, match="needs steps and gradient_bytes"):
        traced_times(path)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="expected one of allreduce"):
        replay_step(EQUAL_S, 8, NETWORK, 2, "gossip")
    with pytest.raises(ConfigError, match="whole nodes"):
        replay_step(EQUAL_S, 8, NETWORK, 6, "hierarchical")
    with pytest.raises(ConfigError, match="at least 1 rank"):
        replay_step(EQUAL_S, 8, NETWORK, 0, "allreduce")
