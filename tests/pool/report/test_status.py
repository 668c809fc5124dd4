"""The status of a pool: jobs, estimates, utilisation, and what is printed."""

import time

import pytest
from pool_story import DATA, STORY

from pympi_train.errors import ConfigError
from pympi_train.pool import events as log
from pympi_train.pool.entry import config_digest
from pympi_train.pool.history import replay
from pympi_train.pool.jobfile.plan import JobPlan, read_plan
from pympi_train.pool.report import status
from pympi_train.pool.report.records import JOBS, check_earlier, write_records
from pympi_train.pool.report.speaker import Speaker
from pympi_train.pool.report.texts import ranks_text, score_text, shortened, varied_text
from pympi_train.pool.report.utilisation import measure_utilisation

NOW = 20.0  # of a pool that has begun at 10


@pytest.fixture
def directory(tmp_path):
    (tmp_path / log.EVENTS).write_bytes(DATA)
    return tmp_path


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A pool that runs: the first ten events of the story."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    written = log.EventLog(tmp_path)
    for event in STORY[:10]:
        written.append(**event)
    yield tmp_path
    written.close()


def progress(directory, **jobs):
    log.write_progress(directory, jobs)


def test_utilisation():
    found = measure_utilisation(replay(STORY), 1000.0)
    assert found["makespan_s"] == 6.0 + 5.0
    assert found["available_s"] == 6.0 * 3 + 5.0 * 2
    of_a, of_b, of_c = 2 * 2 + 2, 2 * 1 + 3, 4
    assert found["assigned_s"] == of_a + of_b + of_c
    assert (found["training_s"], found["startup_s"]) == (6.0, 2.5)
    assert found["training"] == 6.0 / 28.0 and found["startup"] == 2.5 / 28.0
    assert measure_utilisation(replay(STORY[:1]), 10.0)["training"] == 0.0


def test_status_at_the_end(directory):
    found = status.describe_pool(directory)
    assert (found["state"], found["sessions"]) == ("interrupted", 2)
    assert (found["ranks"], found["left_s"]) == (2, None)
    assert found["counts"] == {"finished": 1, "interrupted": 1, "waiting": 1}
    assert [job["seconds"] for job in found["jobs"]] == [4.0, 4.0, 4.0]
    assert [job["rank_seconds"] for job in found["jobs"]] == [6.0, 5.0, 4.0]
    lines = status.status_lines(found)
    # Not the utilisation: what job b did in the session that was killed is not known.
    assert lines[-1] == "use      53.6 % of the rank-seconds so far were given to jobs"
    assert lines[0].endswith("interrupted, 2 ranks, started 2 times")
    assert "jobs     3: 1 interrupted, 1 waiting, 1 finished" in lines


def test_status_while_it_runs(running):
    found = status.describe_pool(running)
    assert (found["state"], found["left_s"]) == ("running", None)
    steps = {"step": 30, "steps": 50, "step_s": 0.5, "ranks": [0, 1]}
    progress(running, b=steps, c={"step": 1}, a=steps, unknown=steps)
    found = status.describe_pool(running)
    a, b, c = found["jobs"]
    assert (a["step"], b["step"], b["steps"], b["left_s"]) == (None, 30, 50, 10.0)
    assert (c["step"], c["left_s"], found["left_s"]) == (1, None, None)
    assert (b["seconds"], c["seconds"]) == (5.0, 8.0)
    line = status.status_lines(found)[4]
    assert line.split() == ["b", "running", "0-1", "0", "30/50", "5", "s", "10", "s"]
    progress(running, b=steps, c={**steps, "step_s": 1.0})
    assert status.describe_pool(running)["left_s"] == 20.0


def test_pool_that_was_killed_ended_when_it_last_wrote(running, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 18.0)
    progress(running, b={"step": 3})
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    monkeypatch.setattr(status, "is_running", lambda *of: False)
    found = status.describe_pool(running)
    assert (found["state"], found["utilisation"]["makespan_s"]) == ("killed", 8.0)
    assert "so far were given to jobs" in status.status_lines(found)[-1]
    assert [job["status"] for job in found["jobs"]] == [
        "finished",
        "interrupted",
        "interrupted",
    ]


def of_status(status, left_s=None, rank_seconds=0.0, n_ranks=1):
    ranks = list(range(n_ranks))
    told = {"left_s": left_s, "rank_seconds": rank_seconds, "ranks": ranks}
    return {"status": status, **told}


@pytest.mark.parametrize(
    "jobs, left_s",
    [
        ([], 0.0),
        ([of_status("finished", rank_seconds=8.0)], 0.0),
        ([of_status("waiting")], None),
        ([of_status("running")], None),
        ([of_status("running", 10.0, 30.0)], 10.0),
        ([of_status("finished", rank_seconds=8.0), of_status("waiting")], 4.0),
        # Two waiting jobs as large as the running one: 20 + 2 x 40 on two ranks.
        ([of_status("running", 10.0, 20.0, 2), *[of_status("waiting")] * 2], 50.0),
        ([of_status("failed", rank_seconds=9.0)], 0.0),
    ],
)
def test_estimated_end(jobs, left_s):
    assert status.estimate_left(jobs, 2) == left_s


def test_many_jobs_show_those_that_run_and_failed(running):
    with open(running / log.EVENTS, "a") as file:
        for i in range(100):
            file.write(f'{{"event": "submit", "time_s": 19.0, "job": "w{i:03}"}}\n')
    lines = status.status_lines(status.describe_pool(running))
    assert [line.split()[0] for line in lines[3:6]] == ["b", "c", "w000"]
    assert "... and 43 more; --json has all" in lines
    assert len(lines) == 2 + 1 + status.SHOWN_JOBS + 1 + 4


def test_errors_and_scores_are_told(directory):
    with open(directory / log.EVENTS, "ab") as file:
        file.write(DATA[: DATA.index(b'{"event": "pool", "time_s": 100')])
    lines = status.status_lines(status.describe_pool(directory))
    assert lines[3].split()[-3:] == ["train", "loss", "0.5"]
    assert lines[5].endswith("no \u2028 good")


def test_texts():
    assert ranks_text([]) == "" and ranks_text(range(3)) == "0-2"
    assert ranks_text([7, 5, 3, 2]) == "2-3,5,7"
    assert shortened(" a\nb") == "a" and len(shortened("x" * 500)) == 70
    assert varied_text({"a.b": 1, "a.c": "x"}) == "a.b=1 a.c=x"
    validation = {"loss": 0.25, "accuracy": 0.5}
    assert score_text({"validation": validation}) == "validation accuracy 0.5"
    assert score_text({"validation": {"loss": 0.25}}) == "validation loss 0.25"
    assert score_text({"validation": None, "train_loss": 2.0}) == "train loss 2"
    for nothing in (None, {}, {"train_loss": None}, "text"):
        assert score_text(nothing) == ""


def test_job_that_never_ran_took_no_time(tmp_path):
    lines: list = []
    console = type("Console", (), {"say": lines.append})
    written = log.EventLog(tmp_path, tell=Speaker(console, tmp_path).tell)
    written.append("pool", ranks=2, nodes=[0, 0], attempt=1)
    told = {"priority": 0, "min_ranks": 1, "max_ranks": 2, "after": ["a"]}
    written.append("submit", job="b", directory="b", **told)
    why = {"error": "a has failed", "result": None, "rank_seconds": {}}
    written.append("end", job="b", status="skipped", **why)
    written.close()
    assert lines[-1].endswith("skipped  b: a has failed")


@pytest.mark.parametrize("nodes, shown", [([0, 1, 1], "0-1"), ([0, 0, 0], None)])
def test_nodes_are_shown_if_there_are_several(tmp_path, nodes, shown):
    written = log.EventLog(tmp_path)
    written.append("pool", ranks=3, nodes=nodes)
    written.append("start", job="a", ranks=[2])
    written.append("resize", job="a", ranks=[2, 0])
    found = status.describe_pool(tmp_path)
    written.close()
    assert found["jobs"][0]["nodes"] == ([0, 1] if shown else [])
    cells = status.status_lines(found)[3].split()
    assert cells[:3] == ["a", "running", "0,2"]
    assert (cells[3] == shown) is bool(shown)


@pytest.mark.parametrize("has_records", [True, False])
def test_a_finished_job_of_another_configuration(tmp_path, has_records):
    """Also without jobs.json: the log has a hash of its configuration."""
    plans = []
    for l2 in ("0.0", "0.1"):
        text = f'[data]\ntrain="a.npz"\n[model]\nkind="linear"\nl2={l2}\n'
        (tmp_path / "run.toml").write_text(text)
        (tmp_path / "jobs.toml").write_text('[[job]]\nname="a"\nconfig="run.toml"\n')
        plans.append(read_plan(str(tmp_path / "jobs.toml"), 1))
    same, other = plans
    written = log.EventLog(same.directory)
    written.begin([0])
    digest = config_digest(same.jobs[0].config)
    written.append("submit", job="a", digest=digest)
    written.append("end", job="a", status="finished")
    written.close()
    if has_records:
        write_records(same)
    assert check_earlier(same, resume=True) == ["a"]
    with pytest.raises(ConfigError, match="its configuration has changed since"):
        check_earlier(other, resume=True)


def test_records_that_are_no_file(tmp_path):
    (tmp_path / JOBS).mkdir()
    with pytest.raises(ConfigError, match="jobs.json is a folder"):
        check_earlier(JobPlan(str(tmp_path), []), resume=False)
