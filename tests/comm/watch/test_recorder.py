"""Calls and steps are recorded; short steps less often, and none when off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.guard import guarded, wait_all
from pympi_train.comm.watch.recorder import (
    CALIBRATION,
    GOLDEN,
    MOST_EVERY,
    WORD,
    Recorder,
    next_chosen,
    power_above,
)
from pympi_train.trace.laps import Laps
from pympi_train.trace.ring import Trace


def limit_of(every):
    return (WORD + 1) // every


def take_steps(recorder, laps, n, first=1):
    for step in range(first, first + n):
        laps.lap("input")
        recorder.mark(j.FORWARD, step)
        recorder.mark(j.BACKWARD, step)
        laps.lap("compute")
        laps.lap("communication")
        laps.lap("update")
        recorder.end_step(step)


def test_each_step_is_recorded():
    laps, trace = Laps(), Trace(10_000)
    recorder = Recorder(None, laps, trace)
    laps.start()
    take_steps(recorder, laps, 99)
    spans = trace.spans()
    assert np.unique(spans["step"]).tolist() == list(range(1, 100))
    names = spans["name"][spans["step"] == 7].tolist()
    assert names == ["input", "forward", "backward", "pack", "update"]
    recorder.stop()
    laps.lap("input")
    assert len(trace.spans()) == len(spans)


def test_of_short_steps_one_of_k_is_recorded():
    laps, trace = Laps(), Trace(10_000)
    recorder = Recorder(None, laps, trace, max_share=1e-2)
    laps.start()
    take_steps(recorder, laps, 9_999)  # such a step takes about as long as its record
    k = recorder.every
    assert k > 1 and k == power_above(k)
    spans = trace.spans()
    later = np.unique(spans["step"][spans["step"] > CALIBRATION + 1])
    chosen = [n for n in range(later[0], 10_000) if n * GOLDEN & WORD < limit_of(k)]
    assert later.tolist() == chosen
    assert len(later) == pytest.approx((10_000 - later[0]) / k, abs=2)
    names = spans["name"][spans["step"] == later[1]].tolist()
    assert names == ["input", "forward", "backward", "pack", "update"]
    with recorder.span("evaluation", 9_999):
        assert recorder.is_on
    assert trace.spans()["name"][-1] == "evaluation" and not recorder.is_on


@pytest.mark.parametrize("every", [2, 16, 256])
@pytest.mark.parametrize("period", [2, 3, 8, 16])
def test_what_has_a_period_is_recorded_as_often_as_the_rest(every, period):
    """Strategy local exchanges in every eighth step, say."""
    steps = np.arange(1, 2**18)
    chosen = steps[steps * GOLDEN & WORD < limit_of(every)]
    assert len(chosen) == pytest.approx(len(steps) / every, rel=0.01)
    assert np.mean(chosen % period == 0) == pytest.approx(1 / period, rel=0.15)


@given(
    st.integers(0, MOST_EVERY.bit_length() - 1),
    st.integers(0, 10**6) | st.integers(0, 2**40),
)
@settings(max_examples=30, deadline=None)
def test_next_recorded_step_is_that_of_trying_each(power, step):
    limit = limit_of(2**power)
    for _ in range(3):  # from any step, then from one that is recorded
        expected = step + 1
        while expected * GOLDEN & WORD >= limit:
            expected += 1
        step = next_chosen(step, limit)
        assert step == expected


def test_after_a_jump_the_next_recorded_step_is_found_anew():
    """A server answers several steps at once, and a training goes on from step 1000."""
    recorder = Recorder(None, Laps(), Trace(10))
    recorder._choose(16)
    for step in (5, 6, 40, 41, 1_000, 7):
        recorder.end_step(step)
        assert recorder.is_on is ((step + 1) * GOLDEN & WORD < limit_of(16))
        if not recorder.is_on:
            assert recorder.next == next_chosen(step, limit_of(16))


def test_powers():
    assert [power_above(n) for n in (0, 0.9, 1, 1.1, 2, 4.5)] == [1, 1, 1, 2, 2, 8]


@pytest.mark.mpi(min_size=2)
def test_calls_of_all_communicators_are_recorded(comm):
    from mpi4py import MPI

    guard = guarded(comm.Dup(), 0)
    child, trace = guard.Split(0, guard.rank), Trace(100)
    recorder = Recorder(guard, Laps(), trace)
    number, found = np.ones(1), np.empty(1)
    child.Allreduce(number, found)
    wait_all(guard, [guard.Iallreduce(number, np.empty(1))])
    child.Sendrecv(number, guard.rank, recvbuf=found, source=guard.rank)
    with pytest.raises((MPI.Exception, ValueError, TypeError)):
        child.Bcast(None, root=0)
    recorder.stop()
    child.Barrier()
    spans = trace.spans()
    names = ["Allreduce", "Iallreduce", "Waitall", "Sendrecv", "Bcast"]
    assert spans["name"].tolist() == names
    kinds = ["collective", "collective", "wait", "wait", "collective"]
    assert [Trace.KINDS[k] for k in spans["kind"]] == kinds
    child.Free()
    guard.Free()
