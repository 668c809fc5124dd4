"""Who used which rank when: bars, characters, and a picture."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_story import STORY

from pympi_train.errors import ConfigError, DataError
from pympi_train.pool.history import replay
from pympi_train.pool.report import chart, gantt
from pympi_train.pool.report.texts import ranks_text

END = STORY[-1]["time_s"]


def test_bars_leave_out_the_time_between_sessions():
    bars = chart.bars_of(replay(STORY), END)
    assert bars == [
        ("a", False, 1.0, 3.0, 0, 2),
        ("a", False, 3.0, 5.0, 0, 1),
        ("b", False, 5.0, 6.0, 0, 2),
        ("b", False, 7.0, 10.0, 1, 1),
        ("c", False, 2.0, 6.0, 2, 1),
    ]
    assert chart.session_starts(replay(STORY), END) == [0.0, 6.0, 11.0]
    failed = [bar.job for bar in chart.bars_of(replay(STORY[:11]), 16.0) if bar[1]]
    assert failed == ["c"]


@given(st.sets(st.integers(0, 40)))
def test_neighbours(ranks):
    runs = chart.neighbours(ranks)
    assert [r for first, n in runs for r in range(first, first + n)] == sorted(ranks)
    assert all(a + n < b for (a, n), (b, _) in zip(runs, runs[1:]))
    text = ",".join(f"{a}-{a + n - 1}" if n > 1 else str(a) for a, n in runs)
    assert ranks_text(ranks) == text


def times_of(job):
    return job.stays[0].start_s, job.stays[0].end_s


@given(st.integers(1, 100), st.integers(1, 60), st.randoms(use_true_random=False))
def test_chart_shows_each_rank_in_the_middle_of_its_column(n_ranks, width, random):
    events = [{"event": "pool", "time_s": 0.0, "ranks": n_ranks}]
    for name in ("x", "y"):
        ranks = random.sample(range(n_ranks), random.randint(1, n_ranks))
        times = sorted(random.uniform(0, 8) for _ in range(2))
        told = {"job": name, "ranks": ranks}
        events.append({"event": "start", "time_s": times[0], **told})
        end = {"event": "end", "job": name, "status": "finished"}
        events.append({**end, "time_s": times[1]})
    events.append({"event": "close", "time_s": 8.0, "status": "finished"})
    history = replay(events)
    lines = chart.chart_lines(history, 8.0, width)
    middles = (np.arange(width) + 0.5) * 8.0 / width
    shown = [line for line in lines if line.startswith("rank ") or "|" in line]
    assert len(shown) <= chart.SHOWN_RANKS
    for line in shown:
        rank, cells = int(line.split()[1]), line.split("|")[1]
        assert len(cells) == width
        for middle, cell in zip(middles, cells):
            has = {
                symbol
                for symbol, job in zip("ab", history.jobs.values())
                if rank in job.ranks
                and job.stays[0].start_s < middle < job.stays[0].end_s
            }
            ends = [t for job in history.jobs.values() for t in times_of(job)]
            if min(abs(middle - t) for t in ends) > 1e-9:
                assert cell == "." if not has else cell in has


def test_empty_pool():
    history = replay(STORY[:1])
    lines = chart.chart_lines(history, 10.0, 10)
    assert lines[0] == "rank 0 |..........|" and len(lines) == 5


def test_units_and_colours():
    assert [gantt.time_unit(s)[0] for s in (5, 599, 600, 35999, 36000)] == [
        "s",
        "s",
        "min",
        "min",
        "h",
    ]
    groups = gantt.job_groups([f"j{i}-{k}" for i in range(9) for k in range(2)])
    colours = gantt.job_colours(groups)
    assert colours["j0-0"] == colours["j0-1"] == colours["j7-0"] != colours["j1-0"]


@pytest.fixture
def figure():
    pytest.importorskip("matplotlib")
    return lambda events: gantt._figure(replay(events), END)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_picture(figure):
    (axes,) = figure(STORY).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "time since the start of the pool / s",
        "rank",
    )
    assert axes.get_title() == "3 jobs on 2 ranks: given to jobs 53.6 %"
    assert axes.get_xlim() == (0, 11.0) and axes.get_ylim() == (2.5, -0.5)
    patches = sum(len(found.get_paths()) for found in axes.collections)
    assert patches == len(chart.bars_of(replay(STORY), END))
    assert set(texts(axes)) == {"a", "b", "c"}
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["a", "b", "c"]


def test_picture_of_failures_and_nodes(figure):
    (axes,) = figure(STORY[:11]).axes
    assert axes.get_ylabel() == "rank (lines: nodes)"
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["a", "b", "c", "failed"]


def test_picture_of_many_jobs(figure):
    events = [{"event": "pool", "time_s": 0.0, "ranks": 2}]
    for i in range(60):
        name = f"long-name-{i:02}" if i < 50 else f"single{i}"
        told = {"job": name, "ranks": [i % 2]}
        events.append({"event": "start", "time_s": float(i), **told})
        end = {"event": "end", "time_s": i + 1.0, "status": "finished"}
        events.append({**end, **told})
    (axes,) = figure(events).axes
    assert axes.get_legend() is None and len(texts(axes)) < 60
    (axes,) = figure(events[:81]).axes
    (entry,) = axes.get_legend().get_texts()
    assert entry.get_text() == "long-name (40 jobs)"


def test_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    with pytest.raises(DataError, match="ends in .png"):
        gantt.draw_gantt(replay(STORY), END, tmp_path / "a.svg")
    path = gantt.draw_gantt(replay(STORY), END, tmp_path / "a.PNG")
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install 'pympi-train.plot.'"):
        gantt.draw_gantt(replay(STORY), END, tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]
