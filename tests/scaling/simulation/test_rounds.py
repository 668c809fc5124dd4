"""Collectives as rounds: closed formulas, and a simulation event by event."""

import heapq
import math
from collections import defaultdict

import numpy as np
import pytest

from pympi_train.scaling.simulation import rounds as module
from pympi_train.scaling.simulation.networks import FatTree
from pympi_train.scaling.simulation.rounds import Collectives, advance, queued

ALPHA, BETA = 2e-6, 1 / 8e9
NAMES = (
    "recursive_doubling",
    "halving_doubling",
    "ring",
    "half_ring",
    "bruck",
    "bruck_reversed",
)


def alone(size):
    """Return collectives of ranks without contention: one rank a node."""
    network = FatTree(1, size, latency_s=ALPHA, bytes_per_s=1 / BETA)
    return Collectives(network, np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 5, 8, 12, 64])
@pytest.mark.parametrize("n", [64.0, 1e6])
def test_without_noise_the_times_are_those_of_the_formulas(size, n):
    power = size.bit_length() - 1
    folds = 2 * (ALPHA + n * BETA) * (size != 1 << power)
    whole = 1 << power
    most = n * BETA * (whole - 1) / whole
    up = math.ceil(math.log2(size))
    each = (size - 1) * ALPHA + n * BETA * (size - 1) / size
    expected = {
        "recursive_doubling": power * (ALPHA + n * BETA) + folds,
        "halving_doubling": 2 * power * ALPHA + 2 * most + folds,
        "ring": 2 * each,
        "half_ring": each,
        "bruck": up * ALPHA + n * BETA * (size - 1) / size,
        "bruck_reversed": up * ALPHA + n * BETA * (size - 1) / size,
    }
    for name in NAMES:
        clocks_s = advance(np.zeros(size), getattr(alone(size), name)(n))
        assert clocks_s.max() == pytest.approx(expected[name], rel=1e-12), name


def by_events(clocks_s, rounds):
    """Return the clocks after ``rounds``, from an agenda of events, one a message.

    A rank's part in a round waits for its own part in the one before and for the
    sender's.
    """
    rounds = [r for r in rounds for _ in range(r.repeats)]
    steps = [  # of each round: target -> (source, seconds)
        dict(zip(r.targets.tolist(), zip(r.sources.tolist(), r.seconds.tolist())))
        for r in rounds
    ]
    here, waiting, agenda = {}, defaultdict(list), []
    for rank, clock_s in enumerate(clocks_s):
        heapq.heappush(agenda, (float(clock_s), rank, 0))
    while agenda:
        now_s, rank, step = heapq.heappop(agenda)
        here[rank, step] = now_s
        if step < len(steps) and rank not in steps[step]:
            heapq.heappush(agenda, (now_s, rank, step + 1))
        waits = waiting.pop((rank, step), [])
        if step < len(steps) and rank in steps[step]:
            waits.append(rank)
        for target in waits:
            source, seconds = steps[step][target]
            if (target, step) not in here:
                waiting[target, step].append(target)
            elif (source, step) not in here:
                waiting[source, step].append(target)
            else:
                latest_s = max(here[target, step], here[source, step])
                heapq.heappush(agenda, (latest_s + seconds, target, step + 1))
    return [here[rank, len(steps)] for rank in range(len(clocks_s))]


@pytest.mark.parametrize("size", [8, 13, 24, 64])
@pytest.mark.parametrize("name", NAMES)
def test_an_agenda_of_events_gives_the_same_clocks(size, name):
    network = FatTree(ranks_per_node=4, nodes_per_group=2, taper=3.0)
    clocks_s = np.random.default_rng(size).exponential(1e-4, size)
    rounds = getattr(Collectives(network, np.arange(size)), name)(1e5)
    assert advance(clocks_s, rounds).tolist() == by_events(clocks_s, rounds)


@pytest.mark.parametrize("name", NAMES)
def test_later_ranks_make_nobody_earlier(name):
    random, collectives = np.random.default_rng(3), alone(13)
    rounds = getattr(collectives, name)(1e4)
    clocks_s = random.exponential(1e-4, 13)
    later_s = clocks_s + random.exponential(1e-5, 13)
    assert (advance(later_s, rounds) >= advance(clocks_s, rounds)).all()
    assert advance(clocks_s, rounds).max() >= clocks_s.max()


def test_groups_at_the_same_time_share_the_links_of_their_node():
    network = FatTree(2, 4, latency_s=1.0, bytes_per_s=10.0)
    both = Collectives(network, np.array([[0, 2], [1, 3]])).recursive_doubling(100.0)
    one = Collectives(network, np.array([[0, 2]])).recursive_doubling(100.0)
    assert advance(np.zeros(4), one).tolist() == [11.0, 0.0, 11.0, 0.0]
    assert advance(np.zeros(4), both).tolist() == [21.0] * 4


def test_the_bound_of_long_rings_is_close(monkeypatch):
    network = FatTree(ranks_per_node=4, nodes_per_group=2)
    clocks_s = np.random.default_rng(0).exponential(1e-4, 64)
    ring = Collectives(network, np.arange(64)).ring(1e6)
    one_by_one = advance(clocks_s, ring)
    monkeypatch.setattr(module, "MOST_REPEATS", 0)
    bound = advance(clocks_s, ring)
    times_s = ring[0].seconds
    slack_s = bound.max() - one_by_one.max()
    assert -1e-12 <= slack_s <= 8 * np.ptp(times_s) + 1e-12


def test_a_server_takes_one_request_after_the_other():
    arrivals_s, end_s, expected = np.array([3.0, 0.0, 0.5, 9.0]), 0.0, {}
    for i in np.argsort(arrivals_s):
        end_s = max(end_s, arrivals_s[i]) + 1.0
        expected[int(i)] = end_s
    found = queued(arrivals_s, 1.0)
    assert found.tolist() == pytest.approx([expected[i] for i in range(4)])
