"""Samples, rounds and joules, by a planted clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.bench.suite import timing
from pympi_train.bench.suite.run import map_entries
from pympi_train.bench.suite.timing import Benchmark, Timings, time_benchmarks


class Clock:
    """Stands still, except for what is added."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def taking(self, seconds):
        def call():
            self.now_s += seconds

        return lambda: call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


class Meter:
    """Counts 3 J from each reading to the next."""

    def __init__(self, names=("package-0",)):
        self.joules, self.names = 0.0, names

    def read(self):
        self.joules += 3
        return dict.fromkeys(self.names, self.joules)


@pytest.mark.mpi(min_size=2)
def test_samples_are_of_the_slowest_rank(comm, clock):
    slow = Benchmark("a/slow", clock.taking(0.5 + comm.rank))
    found = time_benchmarks(comm, [slow], rounds=3, round_s=2 * comm.size)
    n = int(2 * comm.size / (comm.size - 0.5))
    assert found["a/slow"].rounds == [[comm.size - 0.5] * n] * 3


@pytest.mark.mpi(min_size=2)
def test_joules_are_of_all_nodes(comm, clock):
    one = Benchmark("a/b", clock.taking(1.0))
    prepared = Benchmark("a/c", clock.taking(1.0), prepare=lambda: None)
    meter = Meter() if comm.rank < 2 else None  # two nodes
    how = {"rounds": 2, "round_s": 5.0}
    found = time_benchmarks(comm, [one, prepared], **how, meter=meter)
    assert found["a/b"].joules == pytest.approx([6 / 5] * 2)
    assert found["a/c"].joules == [None, None]  # with those of what prepares it
    if comm.rank == 1:
        meter = Meter(names=())  # its node counts nothing
    found = time_benchmarks(comm, [one], **how, meter=meter)
    assert found["a/b"].joules == [None, None]


@given(
    st.floats(0, 1e3), st.floats(0, 10), st.booleans()
)
def test_plan_keeps_its_limits(call_s, round_s, alone):
    samples, burst = timing.planned(call_s, round_s, alone)
    assert 1 <= samples <= timing.MAX_SAMPLES
    assert 1 <= burst <= timing.MAX_BURST and (burst == 1 or not alone)
    if samples > 1:
        assert samples * burst * call_s <= round_s * (1 + 1e-9)
    if not alone and burst < timing.MAX_BURST:
        assert burst * call_s >= timing.LEAST_S * (1 - 1e-9)


def test_what_an_entry_says():
    from mpi4py import MPI

    one = Benchmark("step/a", None, n_flops=10**6, n_rows=50, beside="kernels/matmul")
    limit = Benchmark("kernels/matmul", None, n_flops=10**7)
    timings = {
        # The last round is disturbed, on both sides.
        "step/a": Timings([[1.0, 1.0], [2.0], [9.0]], [4.0, 4.0, 7.0]),
        "kernels/matmul": Timings([[5.0, 5.0], [10.0], [45.0]], [None, None, None]),
    }
    entry, of_limit = map_entries(MPI.COMM_SELF, [one, limit], timings)
    assert entry["median_s"] == 1.5 and entry["min_s"] == 1.0
    assert entry["share"] == pytest.approx(0.1 * 5)
    assert entry["joules"] == 5.0 and entry["joules_per_row"] == 0.1
    assert entry["rows_per_s"] == pytest.approx(50 / 1.5)
    assert of_limit["joules"] is None and "share" not in of_limit
