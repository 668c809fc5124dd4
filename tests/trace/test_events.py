"""Spans of planted events, and a ring that never grows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.trace.events import (
    END,
    KINDS,
    backward_code,
    bucket_codes,
    count_events,
    done_code,
    spans_and_flights,
)
from pympi_train.trace.laps import BREAK, Laps
from pympi_train.trace.ring import Trace

STEP = [  # code and time of one step with a control exchange
    ("input", 2.0),
    (backward_code(7), 3.0),
    ("compute", 5.0),
    ("Allreduce", 5.5),
    (END, 7.0),
    ("communication", 7.25),
    ("update", 8.0),
    (done_code(7), 0.0),
]


def ring(pairs):
    return [item for pair in pairs for item in pair]


def told(pairs):
    spans, _ = spans_and_flights(ring(pairs))
    return [(KINDS[k], name, *rest) for k, name, *rest in spans]


def test_a_step():
    assert sorted(told([(BREAK, 1.0), *STEP, ("input", 9.0)]), key=lambda s: s[3]) == [
        ("input", "input", 7, 1.0, 2.0),
        ("forward", "forward", 7, 2.0, 3.0),
        ("backward", "backward", 7, 3.0, 5.0),
        ("pack", "pack", 7, 5.0, 5.5),
        ("collective", "Allreduce", 7, 5.5, 7.0),
        ("pack", "pack", 7, 7.0, 7.25),
        ("update", "update", 7, 7.25, 8.0),
        ("input", "input", 8, 8.0, 9.0),
    ]


def test_calls_in_an_evaluation_part_it_and_calls_in_a_call_do_not():
    pairs = [
        (BREAK, 1.0),
        ("evaluation", 2.0),
        ("Bcast", 3.0),
        ("Wait", 3.2),
        (END, 3.4),
        (END, 4.0),
        (END, 6.0),
    ]
    assert told(pairs) == [
        ("evaluation", "evaluation", 1, 2.0, 3.0),
        ("collective", "Bcast", 1, 3.0, 4.0),
        ("evaluation", "evaluation", 1, 4.0, 6.0),
    ]


def test_time_after_a_break_belongs_to_no_phase():
    assert told([("update", 1.0), (BREAK, 4.0), ("input", 5.0)]) == [
        ("input", "input", 1, 4.0, 5.0)
    ]


def test_a_half_event_is_left_out():
    items = [1.0, *ring([(BREAK, 1.0), ("input", 2.0)]), "compute", "update", 3.0]
    spans, _ = spans_and_flights(items)
    assert [s[3:] for s in spans] == [(1.0, 2.0), (2.0, 3.0)]


CODES = st.sampled_from(
    ["input", "compute", "communication", "update", BREAK, END, "Allreduce", "Recv"]
    + ["evaluation", backward_code(3), done_code(3), backward_code(4)]
    + [*bucket_codes(0), *bucket_codes(1)]
)


@given(st.lists(CODES, max_size=60), st.integers(1, 40))
def test_spans_of_any_ring_lie_apart_and_within_it(codes, n_spans):
    trace = Trace(n_spans)
    for number, code in enumerate(codes):
        trace.append(code)
        trace.append(1.0 + number)
    assert len(trace.items()) == 2 * n_spans + 2
    assert trace.is_overwritten == (len(codes) > n_spans)
    spans = trace.spans()
    assert len(spans) <= n_spans
    flights = trace.flights()
    assert (flights["end_s"] > flights["start_s"]).all()
    assert (spans["end_s"] > spans["start_s"]).all()
    assert (spans["start_s"][1:] >= spans["end_s"][:-1]).all()
    if len(spans):
        oldest = max(1.0, 1.0 + len(codes) - (n_spans + 1))
        assert spans["start_s"][0] >= oldest
        assert spans["end_s"][-1] <= float(len(codes))


def test_buckets_fly_over_spans_and_each_other():
    (begin0, end0), (begin1, end1) = bucket_codes(0), bucket_codes(1)
    flying = [(begin0, 3.5), (begin1, 4.0), (end0, 5.25), (end1, 6.0)]
    late = [(end1, 9.5)]  # of a flight whose beginning was overwritten
    pairs = sorted([*STEP[:-1], *flying], key=lambda pair: pair[1])
    pairs += [STEP[-1], (begin0, 9.0), *late]
    flights = [(0, 7, 3.5, 5.25), (1, 7, 4.0, 6.0)]
    spans, _ = spans_and_flights(ring(STEP))
    assert spans_and_flights(ring(pairs)) == (spans, flights)


def test_overwritten_steps_leave_the_newest():
    trace = Trace(16)
    for step in range(1, 30):
        for code, time_s in STEP[:-1]:
            code = backward_code(step) if isinstance(code, int) else code
            trace.append(code)
            trace.append(10.0 * step + time_s)
        trace.append(done_code(step))
        trace.append(0.0)
    spans = trace.spans()
    assert trace.is_overwritten and set(spans["step"]) == {28, 29}
    assert spans["end_s"][-1] == 298.0
    newest = spans[spans["step"] == 29]
    assert newest["name"].tolist()[1:4] == ["forward", "backward", "pack"]
    assert count_events(trace.items()) == len(STEP)


def test_laps_are_recorded_and_count_as_before():
    laps, trace = Laps(), Trace(10)
    laps.append = trace.append
    laps.reset()
    laps.lap("input")
    laps.lap("update")
    spans = trace.spans()
    seconds = dict(zip(spans["name"].tolist(), spans["end_s"] - spans["start_s"]))
    assert seconds == pytest.approx({k: laps.seconds[k] for k in ("input", "update")})
    laps.append = None
    laps.lap("input")
    assert len(trace.spans()) == 2


def test_without_spans_there_is_an_empty_table():
    assert Trace(5).spans().shape == (0,) and not Trace(5).is_overwritten
    with pytest.raises(ValueError, match="at least 1"):
        Trace(0)
    assert np.isin(["kind", "step"], Trace(5).spans().dtype.names).all()
