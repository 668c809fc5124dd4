"""The log of a pool: what is appended, what is read back, and what it says."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_story import DATA, STORY

from pympi_train.errors import ConfigError, DataError
from pympi_train.pool import events as log
from pympi_train.pool import history as states
from pympi_train.pool.history import replay


def spans(job):
    return [(s.session, s.start_s, s.end_s, s.ranks) for s in job.stays]


def test_story():
    found = replay(STORY)
    a, b, c = found.jobs.values()
    assert [job.status for job in (a, b, c)] == ["finished", "interrupted", "waiting"]
    assert spans(a) == [(0, 11.0, 13.0, [0, 1]), (0, 13.0, 15.0, [0])]
    assert spans(b) == [(0, 15.0, 16.0, [0, 1]), (1, 101.0, 104.0, [1])]
    assert (a.attempts, b.attempts, c.attempts) == (1, 2, 1)
    assert (a.training_s, a.startup_s, a.result) == (5.0, 0.5, {"train_loss": 0.5})
    assert (c.error, a.priority, a.seconds(0.0)) == (None, 2, 4.0)
    first, second = found.sessions
    assert (first.status, first.end_s, first.n_ranks) == ("killed", 16.0, 3)
    assert (second.status, second.end_s, second.nodes) == ("interrupted", 105.0, [])


def test_state_while_it_runs():
    found = replay(STORY[:10])
    assert [job.status for job in found.jobs.values()] == [
        "finished",
        "running",
        "running",
    ]
    assert found.jobs["b"].after == ["a"]
    assert found.jobs["b"].seconds(20.0) == 5.0
    assert [job.name for job in found.with_status(states.RUNNING)] == ["b", "c"]
    found.abandon(17.0)
    assert found.jobs["b"].status == "interrupted"
    assert spans(found.jobs["c"]) == [(0, 12.0, 17.0, [2])]


@given(st.integers(0, len(DATA)), st.sampled_from([b"", b"\0" * 20, b"\0\n"]))
def test_log_cut_at_any_byte(cut, tail):
    whole = [line for line in DATA[:cut].splitlines(True) if line.endswith(b"\n")]
    events, n_bytes = log.parse_log(DATA[:cut] + tail)
    assert events == STORY[: len(whole)]
    assert DATA[:n_bytes] == b"".join(whole)
    found = replay(events)
    for job in found.jobs.values():
        assert job.status in (states.WAITING, states.RUNNING, *states.ENDINGS)
        running = job.status == states.RUNNING
        assert running is bool(job.stays and job.stays[-1].end_s is None)
        assert job.attempts >= bool(job.stays)


@given(st.integers(0, len(DATA) - 1))
def test_cut_log_is_continued(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    (folder / log.EVENTS).write_bytes(DATA[:cut])
    written = log.EventLog(folder, resume=True)
    n_before = DATA[:cut].count(b"\n")
    written.append("pool", ranks=2, nodes=[])
    written.close()
    content = (folder / log.EVENTS).read_bytes()
    events, n_bytes = log.parse_log(content)
    assert events[:n_before] == STORY[:n_before] and n_bytes == len(content)
    is_open = 0 < n_before < len(STORY)
    kinds = [event["event"] for event in events[n_before:]]
    assert kinds == ["close"] * is_open + ["pool"]
    assert not log.read_history(folder).with_status(states.RUNNING)


@given(st.lists(st.sampled_from(STORY), max_size=20))
def test_any_order_of_events(events):
    found = replay([STORY[0], *events])
    for job in found.jobs.values():
        for stay in job.stays:
            assert stay.end_s is None or stay.end_s >= stay.start_s
        open_ends = [stay for stay in job.stays if stay.end_s is None]
        assert open_ends == (job.stays[-1:] if job.status == states.RUNNING else [])


@pytest.mark.parametrize(
    "content",
    [b"# notes\n", b"1\n", b"{}\n", b'{"event": 3, "time_s": 1}\n', b"\0x", b"x"],
)
def test_file_of_somebody_else_is_left_alone(tmp_path, content):
    (tmp_path / log.EVENTS).write_bytes(content)
    with pytest.raises(DataError, match="expected the events of a pool"):
        log.EventLog(tmp_path, resume=True)
    assert (tmp_path / log.EVENTS).read_bytes() == content
    assert os.listdir(tmp_path) == [log.EVENTS]


def test_damage_in_the_middle():
    lines = DATA.splitlines(True)
    with pytest.raises(DataError, match="line 3 is no event"):
        log.parse_log(b"".join([*lines[:2], b"{\n", *lines[2:]]))
    for wrong in (
        {"event": "pool"},
        {"event": "start", "job": "a"},
        {"event": "start", "job": "a", "ranks": ["x"]},
        {"event": "end", "job": "a", "status": "well"},
        {"event": "submit", "job": 3},
    ):
        with pytest.raises(DataError, match=f"event 2 .{wrong['event']}. is damaged"):
            replay([STORY[0], {"time_s": 3.0, **wrong}])
    with pytest.raises(DataError, match="a job starts before the pool"):
        replay(STORY[1:])


def test_appended_events_are_read_back(tmp_path):
    told = []

    def tell(event, history):
        told.append((event["event"], len(history.jobs)))

    written = log.EventLog(tmp_path / "p", tell=tell)
    written.append("pool", ranks=1, nodes=[0], attempt=1)
    written.append("submit", job="a", after=("b",), time_s=7.5)
    result = {"loss": float("nan"), "text": "é\n"}
    written.append("end", job="a", status="failed", error="x", result=result)
    found = log.read_history(tmp_path / "p")
    assert found.jobs == written.history.jobs
    assert found.jobs["a"].result == {"loss": None, "text": "é\n"}
    assert found.jobs["a"].after == ["b"]
    assert told == [("pool", 0), ("submit", 1), ("end", 1)]
    assert log.is_running(tmp_path / "p", found)
    written.close()
    written.close()
    assert not log.is_running(tmp_path / "p", found)
    assert os.listdir(tmp_path / "p") == [log.EVENTS]
    log.write_progress(tmp_path / "p", {})  # its lock is not to be seen from here
    assert log.is_running(tmp_path / "p", found)
    written = log.EventLog(tmp_path / "p", resume=True)
    written.append("close", status="finished")
    written.close()
    assert not log.is_running(tmp_path / "p", log.read_history(tmp_path / "p"))


def test_pool_that_was_killed_ended_when_it_last_wrote(tmp_path):
    lines = DATA.splitlines(True)[:10]
    (tmp_path / log.EVENTS).write_bytes(b"".join(lines))
    told = {"time_s": 25.0, "jobs": {}}
    (tmp_path / log.PROGRESS).write_text(json.dumps(told))
    log.EventLog(tmp_path, resume=True).close()
    found = log.read_history(tmp_path)
    (session,) = found.sessions
    assert (session.status, session.end_s) == ("killed", 25.0)
    assert spans(found.jobs["c"]) == [(0, 12.0, 25.0, [2])]
    log.EventLog(tmp_path, resume=True).close()
    assert len((tmp_path / log.EVENTS).read_bytes().splitlines()) == 11


def test_two_pools_in_one_directory(tmp_path):
    first = log.EventLog(tmp_path)
    first.append("pool", ranks=1)
    with pytest.raises(ConfigError, match="another run is writing to it"):
        log.EventLog(tmp_path, resume=True)
    first.close()
    with pytest.raises(ConfigError, match="holds an earlier pool; go on"):
        log.EventLog(tmp_path)
    log.EventLog(tmp_path, resume=True).close()


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot be made or written.*choose another"):
        log.EventLog(tmp_path / "taken")


@pytest.mark.parametrize("short", [True, False])
def test_full_disk(tmp_path, monkeypatch, short):
    written = log.EventLog(tmp_path)
    written.append("pool", ranks=1)
    before = written.path.read_bytes()
    write = os.write

    def full(file, data):
        if short:
            return write(file, data[:5])
        write(file, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log.os, "write", full)
        with pytest.raises(DataError, match="events.jsonl: cannot be written"):
            written.append("submit", job="a")
    assert written.path.read_bytes() == before and not written.history.jobs
    written.append("submit", job="a")
    written.close()
    assert list(log.read_history(tmp_path).jobs) == ["a"]


def test_ends_are_on_the_disk_when_they_are_told(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(log.os, "fsync", lambda file: synced.append(sync(file)))
    written, counts = log.EventLog(tmp_path), []
    for event in STORY:
        written.append(**event)
        counts.append((event["event"], len(synced)))
        synced.clear()
    written.close()
    assert counts.pop(0) == ("pool", 2)  # and the folder
    assert {kind for kind, n in counts if n == 1} == {"pool", "end", "close"}
    assert all(n == (kind in ("pool", "end", "close")) for kind, n in counts)


def test_progress(tmp_path):
    assert log.read_progress(tmp_path) == (0.0, {})
    jobs = {"a": {"step": 3, "steps": 10, "step_s": float("inf"), "ranks": [0]}}
    log.write_progress(tmp_path, jobs)
    time_s, found = log.read_progress(tmp_path)
    assert time_s > 0 and found == {"a": {**jobs["a"], "step_s": None}}
    assert os.listdir(tmp_path) == [log.PROGRESS]
    for text in ("", "{", "[]", '{"jobs": {}}', '{"time_s": 1, "jobs": {"a": 1}}'):
        (tmp_path / log.PROGRESS).write_text(text)
        assert log.read_progress(tmp_path) == (0.0, {})
    log.write_progress(tmp_path / "absent", jobs)  # no reason to end a training


def test_lock_goes_with_its_process(tmp_path):
    code = (
        "import os, sys\n"
        "from pympi_train.pool.events import EventLog\n"
        "EventLog(sys.argv[1]).append('pool', ranks=1)\n"
        "os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert done.returncode == 1
    assert not log.is_running(tmp_path, log.read_history(tmp_path))
    log.EventLog(tmp_path, resume=True).close()
