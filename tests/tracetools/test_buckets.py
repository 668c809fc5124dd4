"""The share of flights that backward hides, from planted flights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.trace.chrome import END_OF_FILE, head_text, lane_text
from pympi_train.trace.events import KINDS
from pympi_train.trace.ring import FLIGHT, SPAN
from pympi_train.tracetools.buckets import summarise_buckets, union
from pympi_train.tracetools.read import read_tracks
from pympi_train.tracetools.report import trace_lines
from pympi_train.tracetools.summary import summarise

TIMES = st.tuples(st.integers(0, 40), st.integers(1, 9))


@given(st.lists(TIMES, min_size=1, max_size=12))
def test_a_union_covers_what_its_intervals_cover(intervals):
    starts = np.array([start for start, _ in intervals], float)
    ends = starts + [length for _, length in intervals]
    edges, sums = union(starts, ends)
    assert (np.diff(edges) > 0).all()
    for time in np.arange(0, 51, 0.5):
        covered = np.arange(0, time, 0.5)[:, None]
        plain = ((starts <= covered) & (covered < ends)).any(axis=1).sum() / 2
        assert np.interp(time, edges, sums) == plain


def step_of(number, start_s):
    """Backward for 4 ms, of which 3 ms with a bucket in flight, then a wait of 2 ms."""
    at_ms = [("forward", 0, 1), ("backward", 1, 5), ("wait", 5, 7)]
    spans = [
        (KINDS.index(kind), kind, number, start_s + a * 1e-3, start_s + b * 1e-3)
        for kind, a, b in at_ms
    ]
    flights = [(0, number, start_s + 2e-3, start_s + 6e-3)]
    return spans, flights + [(1, number, start_s + 3e-3, start_s + 7e-3)]


def tracks_of(tmp_path, n_steps, n_ranks=2):
    made = [step_of(n, 1e-2 * n) for n in range(1, n_steps + 1)]
    spans = np.array(sum((s for s, _ in made), []), SPAN)
    flights = np.array(sum((f for _, f in made), []), FLIGHT)
    texts = [lane_text(spans, r, 0, "a", flights=flights) for r in range(n_ranks)]
    path = tmp_path / "trace.json"
    path.write_text(head_text({}) + ",\n".join(texts) + END_OF_FILE)
    return read_tracks(path)[1]


def test_planted_flights_are_summarised(tmp_path):
    tracks = tracks_of(tmp_path, 9)
    assert [len(track.flights) for track in tracks] == [18, 18]
    found = summarise(tracks)
    buckets = found["buckets"]
    assert buckets["per_step"] == 2 and buckets["share_of_steps"] == 1
    assert buckets["median_s"] == pytest.approx(4e-3)
    assert buckets["hidden_share"] == pytest.approx(3 / 5)
    text = "buckets        2 a step, in flight 4 ms (median), 60% of it while backward"
    assert text in "\n".join(trace_lines(found))


def test_a_recorded_step_counts_for_those_before_it(tmp_path):
    """Step 9 stands for steps 6 to 9; its second flight ends 4 ms later."""
    track = tracks_of(tmp_path, 9, n_ranks=1)[0]
    kept = np.isin(track.steps, (3, 4, 5, 9))
    blocks = ("kinds", "steps", "names", "starts_s", "ends_s")
    track = track._replace(**{name: getattr(track, name)[kept] for name in blocks})
    flights = track.flights[np.isin(track.flights[:, 0], (3, 4, 5, 9))]
    flights[-1, 2] += 4e-3
    found = summarise_buckets([track._replace(flights=flights)])
    hidden_ms, flying_ms = 3 * (3 + 4), 3 * 5 + 4 * 9
    assert found["hidden_share"] == pytest.approx(hidden_ms / flying_ms)


def test_steps_of_a_trial_alone_have_buckets(tmp_path):
    """overlap = "auto" sends buckets in every other of the first steps, then none."""
    tracks = [
        t._replace(flights=t.flights[t.flights[:, 0] == 4])
        for t in tracks_of(tmp_path, 11)
    ]
    found = summarise(tracks)
    assert found["buckets"]["share_of_steps"] == pytest.approx(1 / 10)
    assert "2 in each of 10% of the steps, in flight" in "\n".join(trace_lines(found))


def test_without_flights_there_is_nothing_to_tell(tmp_path):
    tracks = [t._replace(flights=t.flights[:0]) for t in tracks_of(tmp_path, 3)]
    assert summarise_buckets(tracks) is None
    assert "buckets" not in "\n".join(trace_lines(summarise(tracks)))
