"""Choices by measuring: equal on all ranks, by the time of the slowest rank."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.errors import ConfigError
from pympi_train.parallel import trials
from pympi_train.parallel.allreduce import Allreduce


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test advances, so that machine load has no effect."""

    class Clock:
        now_s = 0.0

        def sleep(self, seconds):
            self.now_s += seconds

    clock = Clock()
    monkeypatch.setattr(trials, "perf_counter", lambda: clock.now_s)
    return clock


def test_only_what_clearly_wins_is_taken():
    assert trials.fastest({"a": 1.0, "b": 0.99}, "a") == "a"
    assert trials.fastest({"a": 1.0, "b": 0.9}, "a") == "b"
    assert trials.fastest({"a": 1.0, "b": 1.0, "c": 0.5}, "b") == "c"
    assert trials.fastest({"a": 1.0}, "a") == "a"


@pytest.mark.mpi(min_size=2)
def test_the_slowest_rank_counts(comm, clock):
    slow = {"first": 0, "second": comm.size - 1}  # rank that makes a candidate slow
    calls = []

    def candidate(name):
        def call():
            calls.append(name)
            clock.sleep(0.004 if comm.rank == slow[name] else 0.001)

        return call

    seconds = trials.time_candidates(
        comm, {name: candidate(name) for name in slow}, rounds=3
    )
    assert calls == ["first", "second"] * 3
    assert seconds == pytest.approx({"first": 0.004, "second": 0.004})
    assert comm.allgather(seconds) == [seconds] * comm.size


@pytest.mark.mpi(min_size=2)
def test_measuring_ends_with_its_time(comm, monkeypatch):
    monkeypatch.setattr(trials, "BUDGET_S", 0)
    calls = []
    trials.time_candidates(comm, {"only": lambda: calls.append(0)}, rounds=50)
    assert len(calls) == 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 5, 1000])
def test_choice_of_the_sum_leaves_zeros(comm, monkeypatch, dtype, n):
    monkeypatch.setattr(trials, "LEAST_BYTES", 1)
    block = np.zeros(n, dtype)
    name, told = trials.choose_sum(comm, block)
    assert comm.allgather((name, told)) == [(name, told)] * comm.size
    assert told["exchange_seconds"].keys() == trials.SUMS.keys()
    assert told["exchange_bytes"] == block.nbytes
    assert_array_equal(block, np.zeros(n, dtype))


@pytest.mark.mpi(min_size=2)
def test_a_slow_network_is_measured_on_less(comm, monkeypatch, clock):
    seen = set()

    def slow(comm, block):
        seen.add(block.size)
        clock.sleep(block.nbytes * 1e-6)

    monkeypatch.setattr(trials, "FIRST_BYTES", 1024)
    monkeypatch.setattr(trials, "BUDGET_S", 0.01)
    monkeypatch.setitem(trials.SUMS, "mpi", slow)
    block = np.zeros(10**6, np.float32)
    name, told = trials.choose_sum(comm, block)
    assert name != "mpi"
    assert max(seen) < 4096  # 10 ms at 1 MB/s


@pytest.mark.mpi(min_size=2)
def test_small_blocks_are_not_measured(comm):
    block = np.ones(100)  # would be zeroed
    assert trials.choose_sum(comm, block) == ("mpi", {})
    assert block.all()


LAYOUT = pt.Layout([pt.Tensor("w", (300,)), pt.Tensor("v", (7,))], "float64")


def maker(comm, clock=None, delay_s=0.0, log=None):
    class Slow(Allreduce):
        def combine(self):
            clock.sleep(delay_s)
            super().combine()

        def free(self):
            if log is not None:
                log.append(self.layout.size)

    return lambda layout, optimizer: Slow(comm, layout, optimizer, numpy_ops)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("winner", ["first", "second"])
def test_strategy_by_exchange_and_update(comm, clock, winner):
    optimizer, log = pt.Adam(0.1), []
    delays = {"first": 0.002, "second": 0.002, winner: 0.001}
    makers = {name: maker(comm, clock, s, log) for name, s in delays.items()}
    name, told = trials.choose_strategy(comm, LAYOUT, optimizer, makers, sample_size=99)
    assert name == winner
    assert told["strategy_seconds"] == pytest.approx(delays)
    assert comm.allgather(told) == [told] * comm.size
    assert (optimizer.state, optimizer.step) == ({}, 0)
    assert log == [104, 104]  # samples with their padding, freed


@pytest.mark.mpi(min_size=2)
def test_strategy_that_cannot_be_is_left_out(comm):
    def impossible(layout, optimizer):
        raise ConfigError("no shared memory")

    makers = {"first": maker(comm), "second": impossible}
    chosen = trials.choose_strategy(comm, LAYOUT, pt.SGD(0.1), makers)
    assert chosen == ("first", {})


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("winner", ["off", "on"])
def test_trial(comm, winner):
    trial, names = trials.Trial(comm, ("off", "on"), steps=4), []
    ends = []
    while trial.seconds is None:
        names.append(trial.name)
        slow = trial.name != winner and comm.rank == comm.size - 1
        warm = len(names) > 2  # the first of each does not count
        ends.append(trial.record((2.0 if slow else 1.0) if warm else 100.0))
    assert names == ["off", "on"] * 5
    assert ends == [False] * 9 + [True]
    assert trial.name == winner
    assert trial.seconds == {"off": 2.0, "on": 2.0, winner: 1.0}
