"""The commands ``pympi-train pool`` and ``pool status``."""

import json
import sys

import pytest

JOBS = """
[pool]
directory = "night"

[[job]]
name = "last"
config = "c.toml"
after = ["rates"]

[[job]]
name = "rates"
config = "c.toml"
set = { train.epochs = 1 }
sweep = { optimizer.learning_rate = [0.01, 0.05] }
"""
NAMES = ["rates-1", "rates-2", "last"]


@pytest.fixture
def jobs(folder):
    (folder / "jobs.toml").write_text(JOBS)
    return folder


def statuses(found):
    return {job["name"]: job["status"] for job in found["jobs"]}


def test_all_jobs_in_their_order(jobs, pympi_train):
    done = pympi_train("pool", "jobs.toml")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"pool     {jobs}/night: 3 jobs, 1 rank"
    told = [line.split(" s  ")[1].split()[:2] for line in lines if " s  " in line]
    assert told == [[w, n] for n in NAMES for w in ("start", "finished")]
    assert "jobs     3: 3 finished" in lines
    for name in NAMES:
        assert (jobs / "night" / "jobs" / name / "weights.safetensors").exists()


def test_json_is_the_status(jobs, pympi_train):
    done = pympi_train("pool", "jobs.toml", "--json")
    found = json.loads(done.out)
    assert statuses(found) == dict.fromkeys(NAMES, "finished")
    assert (found["state"], found["exit_status"]) == ("finished", 0)
    assert found["picture"] is None
    assert found["jobs"][1]["varied"] == {"optimizer.learning_rate": 0.05}
    later = json.loads(pympi_train("pool", "status", "night", "--json").out)
    del found["exit_status"], found["picture"], later["directory"]
    assert later == {key: value for key, value in found.items() if key != "directory"}


def test_status_without_mpi(jobs, pympi_train, monkeypatch):
    assert pympi_train("pool", "jobs.toml").status == 0
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # any import of it fails
    done = pympi_train("pool", "status", jobs / "night")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"pool     {jobs}/night: finished, 1 rank\n")
    (line,) = [line for line in done.out.splitlines() if line.startswith("rates-2")]
    assert "validation accuracy" in line
    assert line.endswith("  optimizer.learning_rate=0.05")


def test_picture(jobs, pympi_train):
    pytest.importorskip("matplotlib")
    assert pympi_train("pool", "jobs.toml").status == 0
    done = pympi_train("pool", "status", "night", "--picture")
    assert done.out.endswith("picture  night/ranks.png\n")
    assert (jobs / "night" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    done = pympi_train("pool", "status", "night", "--picture", "night/events.jsonl")
    assert done.status == 2 and "expected a name that ends in .png" in done.err


def test_picture_at_the_end(jobs, pympi_train, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("pympi_train.pool.report.ending.DRAWN_FROM_S", 0.0)
    done = pympi_train("pool", "jobs.toml")
    assert done.out.endswith(f"picture  {jobs}/night/ranks.png\n")
    (jobs / "other.toml").write_text(JOBS.replace('"night"', '"other"'))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = pympi_train("pool", "other.toml")
    assert done.status == 0
    assert "not drawn: ranks.png needs matplotlib: pip install" in done.out
    assert "\nrank 0 |" in done.out and "\na  rates-1\n" in done.out


def test_failed_jobs(jobs, pympi_train):
    text = JOBS.replace("[0.01, 0.05]", "[0.01, 1e30]")
    (jobs / "jobs.toml").write_text(text)
    done = pympi_train("pool", "jobs.toml", "--json")
    found = json.loads(done.out)
    assert (done.status, found["exit_status"]) == (1, 1)
    assert statuses(found) == dict(zip(NAMES, ("finished", "failed", "skipped")))
    assert "became too large" in found["jobs"][1]["error"]
    # Corrected, the failed job and the one that needs it are done; the other is kept.
    (jobs / "jobs.toml").write_text(JOBS)
    done = pympi_train("pool", "jobs.toml", "--resume")
    assert done.status == 0
    assert "3 jobs, 1 of them finished before" in done.out
    assert "start    rates-1" not in done.out and "start    last" in done.out


def test_earlier_pool(jobs, pympi_train):
    assert pympi_train("pool", "jobs.toml", "--resume").status == 0
    done = pympi_train("pool", "jobs.toml")
    assert done.status == 2 and "holds an earlier pool; go on from it" in done.err
    (jobs / "jobs.toml").write_text(JOBS.replace("epochs = 1", "epochs = 2"))
    done = pympi_train("pool", "jobs.toml", "--resume")
    assert done.status == 2
    assert "'rates-1' has finished in" in done.err and done.err.count("\n") == 1


# The process has begun long ago: each training saves, and ends after its first step.
TIMES_UP = JOBS.replace("epochs = 1", "epochs = 1, checkpoint.max_time = 1e-3")


def test_interrupted_pool(jobs, pympi_train):
    (jobs / "jobs.toml").write_text(TIMES_UP)
    done = pympi_train("pool", "jobs.toml", "--json")
    found = json.loads(done.out)
    assert (done.status, found["exit_status"]) == (75, 75)
    assert found["state"] == "interrupted"
    assert statuses(found) == dict(zip(NAMES, ("interrupted", "waiting", "waiting")))
    (jobs / "jobs.toml").write_text(JOBS)
    done = pympi_train("pool", "jobs.toml", "--resume", "--json")
    found = json.loads(done.out)
    assert (done.status, found["sessions"]) == (0, 2)
    assert [job["attempts"] for job in found["jobs"]] == [2, 1, 1]


@pytest.mark.parametrize(
    "words, told",
    [
        (("status",), "status needs the directory of a pool"),
        (("status", "night", "--resume"), "--resume is for a job file"),
        (("jobs.toml", "night"), "unrecognized arguments: night"),
        (("jobs.toml", "--picture"), "--picture is for status"),
        ((), "JOBS.toml"),
    ],
)
def test_usage(pympi_train, words, told):
    done = pympi_train("pool", *words)
    assert done.status == 2 and told in done.err


@pytest.mark.parametrize(
    "text, told",
    [
        (None, "No such file"),
        ("[[job]]\nname = 'a'\nconfig = 'absent.toml'", "absent.toml: No such file"),
        (JOBS.replace("epochs", "epoch"), "did you mean 'epochs'?"),
        (JOBS.replace('"rates"]', '"rate"]'), "did you mean 'rates'?"),
        (JOBS + "memory_gb = 1e9", "job rates-1: there is no room for 1 of its ranks"),
    ],
)
def test_nothing_begins_with_an_error(folder, pympi_train, text, told):
    if text is not None:
        (folder / "jobs.toml").write_text(text)
    done = pympi_train("pool", "jobs.toml")
    assert done.status == 2
    assert told in done.err and done.err.count("\n") == 1
    assert not (folder / "night").exists() and not (folder / "runs").exists()


@pytest.mark.parametrize("content", [None, "", "# notes\n"])
def test_status_where_there_is_no_pool(tmp_path, pympi_train, content):
    if content is not None:
        (tmp_path / "events.jsonl").write_text(content)
    done = pympi_train("pool", "status", tmp_path)
    assert done.status == 2 and done.err.count("\n") == 1
    assert ("no pool has begun there" in done.err) is not bool(content)


@pytest.mark.mpi(min_size=2)
def test_ranks_agree(shared_folder, comm, pympi_train):
    if comm.rank == 0:
        (shared_folder / "jobs.toml").write_text(TIMES_UP)
    comm.Barrier()
    done = pympi_train("pool", "jobs.toml")
    assert comm.allgather(done.status) == [75] * comm.size
    if comm.rank == 0:
        (shared_folder / "jobs.toml").write_text(JOBS)
    done = pympi_train("pool", "jobs.toml", "--json", "--resume")
    assert comm.allgather(done.status) == [0] * comm.size
    if comm.rank == 0:
        found = json.loads(done.out)
        assert found["ranks"] == comm.size
        assert statuses(found) == dict.fromkeys(NAMES, "finished")
    assert comm.rank == 0 or done.out == ""
    done = pympi_train("pool", "jobs.toml")
    assert comm.allgather(done.status) == [2] * comm.size
