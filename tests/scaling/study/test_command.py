"""The command: launches, what is not measured again, and errors."""

import json
import os
import re
import subprocess
import sys

import pytest
from small_runs import TEXT, write_rows

from pympi_train.scaling.study.record import settings_digest


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path)
    (tmp_path / "c.toml").write_text(TEXT)
    return tmp_path


# Read by Python at its start: the second rank is killed in the middle of its steps.
KILLER = """
import os, signal, sys, threading, time

def kill_in_a_step():
    while "pympi_train.cli" not in sys.modules:
        time.sleep(0.01)
    from pympi_train.scaling.study.measure import StepTimes
    StepTimes.__call__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

ranks = {os.environ.get(name) for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")}
if "1" in ranks:
    threading.Thread(target=kill_in_a_step, daemon=True).start()
"""


def scaling(folder, *words, **environ):
    ours = {k: v for k, v in os.environ.items() if not k.startswith("PMI")}
    return subprocess.run(
        [sys.executable, "-m", "pympi_train", "scaling", "c.toml", *words],
        cwd=folder,
        env={**ours, **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_study(folder):
    words = ["--ranks", "1,2", "--repeats", "1", "--steps", "5", "--output", "o.json"]
    more = ["--strategies", "allreduce,server"]
    done = scaling(folder, *words, *more)
    assert done.returncode == 0, done.stderr
    assert "not measured: server on 1" in done.stderr
    assert done.stderr.count(" ms a step") == 3
    assert "efficiency" in done.stdout and "On 2 ranks" in done.stdout
    study = json.loads((folder / "o.json").read_text())
    assert {(m["strategy"], m["ranks"]) for m in study["measurements"]} == {
        ("allreduce", 1),
        ("allreduce", 2),
        ("server", 2),
    }
    assert {one["ranks"] for one in study["exchanges"]} == {2}
    cpus = {(m["strategy"], m["ranks"]): m["cpus"] for m in study["measurements"]}
    assert [len(found) for found in cpus.values()] == [n for _, n in cpus]
    if len(os.sched_getaffinity(0)) >= 2:
        (alone,) = cpus["allreduce", 1]
        first, second = cpus["allreduce", 2]
        assert len(alone) == len(first) == len(second)
        assert not {*first} & {*second}
    assert (folder / "o.html").exists() and (folder / "o.csv").exists()
    if not any(one["oversubscribed"] for one in study["measurements"]):
        own = [one for one in study["predictions"] if one["way"] == "allreduce, int8"]
        assert own[0]["ranks"][::11] == [4, 8192] and len(own) == 1
        assert "the best compression of each strategy:" in done.stdout
        assert "allreduce, int8" in (folder / "o.html").read_text()
    again = scaling(folder, *words, *more, "--json")
    assert again.returncode == 0 and "3 of 3 cases were measured before" in again.stderr
    assert " ms a step" not in again.stderr
    assert json.loads(again.stdout) == study
    other = scaling(folder, *words, "--set", "train.seed=7")
    assert other.returncode == 2 and "config_hash differs" in other.stderr
    assert json.loads((folder / "o.json").read_text()) == study
    assert sorted(p.name for p in folder.iterdir()) == [
        "c.toml",
        "o.csv",
        "o.html",
        "o.json",
        "rows.npz",
    ]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--ranks", "0"], "--ranks: expected a whole number from 1, got '0'"),
        (["--strategies", "ring"], "got 'ring'"),
        (["--launcher", "srun"], "--launcher srun: this is no SLURM job"),
        (["--launcher", "no-such-program"], "no such program was found"),
        (["--set", "model.kin=mlp"], "did you mean 'kind'"),
        (["--set", "data.train=none.npz"], "none.npz"),
        (["--output", "none/o.json"], "none cannot be written: No such file"),
        (["--output", "o.html"], "expected a name that ends in .json"),
        (["--mode", "weak", "--ranks", "9"], "more than the 80 training rows"),
    ],
)
def test_errors(folder, words, told):
    done = scaling(folder, "--ranks", "1", "--repeats", "1", "--steps", "3", *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr.splitlines()[-1]


def test_a_configuration_that_is_edited_during_a_study(folder):
    asked = {"text_digest": settings_digest(TEXT, ()), "batch_size": 16}
    told = json.dumps({**asked, "steps": 3, "cores_per_rank": 1})
    words = ["--measure", told, "found.json"]
    assert scaling(folder, *words).returncode == 0
    (folder / "c.toml").write_text(TEXT.replace("[6]", "[7]"))
    done = scaling(folder, *words)
    assert done.returncode == 2
    assert "c.toml: the file was edited since the study began" in done.stderr


def test_launch_that_fails_is_tried_again(folder):
    words = ["--ranks", "1,2", "--repeats", "1", "--steps", "3", "--mode", "weak"]
    done = scaling(folder, *words, "--set", "train.batch_size=60")
    assert done.returncode == 1
    assert "1 launch failed; the same command tries again" in done.stderr
    study = json.loads((folder / "scaling.json").read_text())
    errors = {m["ranks"]: m["error"] for m in study["measurements"]}
    assert errors[1] is None and "training rows" in errors[2]
    assert study["exchanges"] == []


def test_a_rank_that_is_killed_ends_its_launch_alone(folder):
    (folder / "killer").mkdir()
    (folder / "killer" / "sitecustomize.py").write_text(KILLER)
    words = ["--ranks", "1,2", "--repeats", "1", "--steps", "5", "--timeout", "120"]
    path = os.pathsep.join([str(folder / "killer"), os.environ.get("PYTHONPATH", "")])
    done = scaling(folder, *words, PYTHONPATH=path)
    assert done.returncode == 1, done.stderr
    assert "1 launch failed; the same command tries again" in done.stderr
    study = json.loads((folder / "scaling.json").read_text())
    errors = {m["ranks"]: m["error"] for m in study["measurements"]}
    assert errors[1] is None and re.search("(?i)kill", errors[2]), errors
    again = scaling(folder, *words)
    assert again.returncode == 0 and "1 of 2 cases were measured before" in again.stderr
    assert "On 2 ranks the efficiency is" in again.stdout
