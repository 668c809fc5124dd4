"""Ranks that are killed: those that are left go on. Needs Open MPI 5, with ULFM."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mpi_launch import Job, environment, ranks_of
from small_runs import TEXT, records, write_rows

HOW = [
    "train.epochs=60",
    "parallel.reduction=exact",
    "parallel.timeout_s=60",
    "checkpoint.every_steps=100000",
    "elastic.survive=true",
]
ARGV = [sys.executable, "-m", "pympi_train", "train", "c.toml", "--set", *HOW]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("survive")
    write_rows(path, 400)
    (path / "c.toml").write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder, open_mpi_5):
    """The result of one process, which survives anyway."""
    how = ["--set", "output.directory=whole", "--json"]
    done = subprocess.run(
        [*ARGV, *how], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def segments_of(pids):
    """The files in /dev/shm that processes have mapped, and that still have a name."""
    lines = [s for p in pids for s in Path(f"/proc/{p}/maps").read_text().splitlines()]
    paths = {line.split(maxsplit=5)[-1] for line in lines}
    return {p for p in paths if p.startswith("/dev/shm/") and os.path.exists(p)}


def wait_for_epochs(folder, job, n_epochs):
    path = folder / "metrics.jsonl"
    for _ in range(6000):
        if path.exists() and len(path.read_text().splitlines()) >= n_epochs:
            return
        assert job.wait(0.01) is None, job.output()
    raise AssertionError(job.output())


@pytest.mark.parametrize(
    "victims, number",
    [
        ((0, 2), signal.SIGKILL),
        pytest.param((1,), signal.SIGKILL, marks=pytest.mark.grid),
        pytest.param((1,), signal.SIGSTOP, marks=pytest.mark.grid),
    ],
)
def test_killed_ranks_are_not_missed(folder, undisturbed, victims, number):
    name = "-".join(map(str, [*victims, number]))
    timeout_s = 4 if number == signal.SIGSTOP else 60  # the watchdog's
    where = [f"output.directory={name}", f"parallel.timeout_s={timeout_s}"]
    how = ["--set", *where, "--json"]
    with Job(3, ["--with-ft", "ulfm", *ARGV, *how], cwd=folder) as job:
        segments = set()
        for before, victim in enumerate(victims):
            wait_for_epochs(folder / name, job, 3 + 10 * before)
            ranks = ranks_of(job)
            segments |= segments_of(ranks.values())
            os.kill(ranks[victim], number)
            end_s = time.monotonic() + 60
            while f"{before + 1} of 3" not in (said := told(job)):
                assert time.monotonic() < end_s, said
                time.sleep(0.01)
        status = job.wait(120)
        out, err = job.output()
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("{")]
    result = json.loads(line)
    assert result["ranks"] == 3 - len(victims)
    for key in ("weights_sha256", "steps", "epochs", "train_loss", "validation"):
        assert result[key] == undisturbed[key]
    assert records(folder, name) == records(folder, "whole")
    assert err.count("resumed  the state of rank") == len(victims)
    assert segments and not any(map(os.path.exists, segments))


def test_state_that_was_spread_over_a_killed_rank(folder, undisturbed):
    """It comes from the last checkpoint; to rounding: others sum in another order."""
    where = ["output.directory=spread", "parallel.reduction=fast"]
    spread = ["parallel.strategy=sharded", "parallel.stage=3"]
    how = ["--set", *where, *spread, "checkpoint.every_steps=20", "--json"]
    with Job(3, ["--with-ft", "ulfm", *ARGV, *how], cwd=folder) as job:
        wait_for_epochs(folder / "spread", job, 5)
        os.kill(ranks_of(job)[1], signal.SIGKILL)
        status = job.wait(120)
        out, err = job.output()
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("{")]
    result = json.loads(line)
    assert result["ranks"] == 2
    assert re.search(r"resumed  \S*checkpoints/\d+-step-\d+: ", err)
    for key in ("steps", "epochs", "samples_seen"):
        assert result[key] == undisturbed[key]
    assert result["train_loss"] == pytest.approx(undisturbed["train_loss"], rel=1e-3)
    epochs = [record["epoch"] for record in records(folder, "spread")]
    assert epochs == list(range(1, 61))


def told(job):
    """How many ranks have died, in the job's own words."""
    ranks = re.findall(r"warning  ranks? ([\d, ]+) of 3 died", job.output()[1])
    return f"{len(ranks[-1].split(', ')) if ranks else 0} of 3"


def test_refused_if_deaths_are_not_reported(folder, mpirun):
    how = ["--set", "output.directory=never"]
    done = mpirun(2, [*ARGV, *how], cwd=folder)
    assert done.returncode == 2
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("pympi-train")]
    assert "survive = true" in line and "--with-ft ulfm" in line
    assert not (folder / "never").exists()
