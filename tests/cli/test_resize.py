"""The command ``pympi-train resize``: what it asks for, and what it refuses."""

import fcntl
import json
import sys

import pytest

from pympi_train.runs.elastic.requests import REQUEST, STATUS, Bounds
from pympi_train.runs.lock import LOCK

SHARDS = "[parallel] virtual_shards = 4"
SERVERS = "[parallel] servers = 2"


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A run directory whose training runs on 4 of 8 ranks."""
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # any import of it fails
    status = {**Bounds(8, 1, 8)._asdict(), "active": 4}
    (tmp_path / STATUS).write_text(json.dumps(status))
    with open(tmp_path / LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield tmp_path


@pytest.mark.parametrize(
    "n, words",
    [
        (6, "asked for 4 -> 6 of 8 ranks, within seconds\n"),
        (4, "4 ranks of 8 train already\n"),
    ],
)
def test_request(running, pympi_train, n, words):
    done = pympi_train("resize", running, n)
    assert (done.status, done.out, done.err) == (0, words, "")
    assert json.loads((running / REQUEST).read_text()) == {"ranks": n}
    done = pympi_train("resize", running, n, "--json")
    assert json.loads(done.out) == {
        "directory": str(running),
        "job": 8,
        "active": 4,
        "ranks": n,
    }


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", ""])
def test_usage(pympi_train, text):
    done = pympi_train("resize", "run", text)
    assert done.status == 2
    assert "RANKS: expected a whole number from 1" in done.err or text == "-1"


def test_more_ranks_than_the_job_has(running, pympi_train):
    done = pympi_train("resize", running, 9)
    assert done.status == 2
    assert "no change to 9 ranks: the job has 8 ranks\n" in done.err
    assert not (running / REQUEST).exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"job": 8', "cannot be read"),
        ("[1]", "expected a JSON object, found '[1]'"),
        ("{" + 5000 * " " + "}", "cannot be read"),
        ('{"job": 8, "least": 1, "most": true}', "ranks.json: most: expected a whole"),
    ],
)
def test_damaged_status(running, pympi_train, content, words):
    (running / STATUS).write_text(content)
    done = pympi_train("resize", running, 2)
    assert (done.status, done.out) == (2, "")
    assert words in done.err and done.err.count("\n") == 1


def test_no_training_runs_there(running, tmp_path_factory, pympi_train):
    done = pympi_train("resize", running / "none", 2)
    assert done.status == 2 and "none: no such run directory" in done.err
    empty = tmp_path_factory.mktemp("empty")
    done = pympi_train("resize", empty, 2)
    assert done.status == 2 and f"{empty}: no training runs there" in done.err
    for without_lock in (False, True):  # a job that was killed leaves its files
        (empty / STATUS).write_text((running / STATUS).read_text())
        (empty / LOCK).touch()
        if without_lock:
            (empty / LOCK).unlink()
        done = pympi_train("resize", empty, 2)
        assert done.status == 2 and f"{empty}: no training runs there" in done.err
    assert not (empty / REQUEST).exists()


@pytest.mark.parametrize(
    "bounds, allowed, why",
    [
        (Bounds(3, 1, 3), [1, 2, 3], "the job has 3 ranks"),
        (Bounds(6, 1, 4, SHARDS), [1, 2, 3, 4], f"{SHARDS} takes between 1 and 4"),
        (Bounds(6, 3, 6, SERVERS), [3, 4, 5, 6], f"{SERVERS} takes between 3 and 6"),
    ],
)
def test_bounds(bounds, allowed, why):
    found = {n: bounds.refusal(n) for n in range(1, 9)}
    assert [n for n, refusal in found.items() if refusal is None] == allowed
    outside = allowed[0] - 1 or allowed[-1] + 1
    assert found[outside] == why
    assert found[8] == f"the job has {bounds.job} ranks"
