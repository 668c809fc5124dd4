"""``pympi-train launch`` with real ranks, which are killed."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi_launch
import pytest
from small_runs import TEXT, write_rows

from pympi_train.checkpoint import store
from pympi_train.launch.launched import TAG

HOW = ["train.epochs=30", "parallel.reduction=exact", "checkpoint.every_steps=20"]
# A launcher that starts two ranks only, once the file "lost" exists.
LOSES_A_NODE = """\
#!/bin/sh
if [ -e lost ] && [ "$2" -gt 2 ]; then echo "too few slots" >&2; exit 1; fi
exec {mpirun} "$@"
"""


def launch(folder, *words, env=None):
    """Start ``pympi-train launch`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pympi_train", "launch", *map(str, words)],
        env=mpi_launch.environment(env),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch")
    write_rows(path, 300)
    (path / "c.toml").write_text(TEXT)
    launcher = path / "mpirun"
    mpirun = shlex.quote(mpi_launch.find_mpirun())
    launcher.write_text(LOSES_A_NODE.format(mpirun=mpirun))
    launcher.chmod(0o755)
    return path


def training(name):
    return ["--", "train", "c.toml", "--set", *HOW, f"output.directory={name}"]


def weights(folder, name):
    return json.loads((folder / name / "result.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def undisturbed(folder):
    job = launch(folder, "-n", 3, *training("whole"))
    _, said = job.communicate(timeout=300)
    assert job.returncode == 0, said
    return weights(folder, "whole")


def ranks_of(job):
    """The pids of the ranks that a launch has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.with_name("cmdline").read_bytes().split(b"\0")
            is_rank = f"{TAG}=".encode() in path.read_bytes()
        except OSError:
            continue
        if is_rank and words[0] == os.fsencode(sys.executable) and b"train" in words:
            if descends(int(path.parts[2]), job.pid):
                found.append(int(path.parts[2]))
    return found


def shared_memory(ranks):
    """The files in /dev/shm that ranks have mapped, and that still have a name."""
    found = set()
    for pid in ranks:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            path = line.split(maxsplit=5)[-1]
            if path.startswith("/dev/shm/") and os.path.exists(path):
                found.add(path)
    return found


def descends(pid, ancestor):
    while pid > 1 and pid != ancestor:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == ancestor


def wait_for_checkpoint(folder, name, job):
    for _ in range(3000):
        if store.entries(folder / name / "checkpoints"):
            return
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    raise AssertionError("no checkpoint within 30 s")


def test_killed_rank_and_fewer_ranks(folder, undisturbed):
    asked = ["-n", 3, "--min-ranks", 1, "--launcher", "./mpirun"]
    job = launch(folder, *asked, *training("fewer"))
    wait_for_checkpoint(folder, "fewer", job)
    (folder / "lost").touch()
    ranks = ranks_of(job)
    segments = shared_memory(ranks)
    os.kill(random.choice(ranks), signal.SIGKILL)
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert segments and not any(map(os.path.exists, segments))
    assert "SIGKILL" in err and "2 ranks: no more can be started now" in err
    assert "resumed  " in out.split("resumed  nothing")[1]
    assert weights(folder, "fewer") == undisturbed


def is_alive(pid):
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_killed_mpirun_and_killed_launch(folder, undisturbed):
    job = launch(folder, "-n", 3, *training("killed"))
    wait_for_checkpoint(folder, "killed", job)
    ranks = ranks_of(job)
    for pid in [int(p.name) for p in Path("/proc").glob("[0-9]*")]:
        if descends(pid, job.pid) and pid not in (job.pid, *ranks):
            os.kill(pid, signal.SIGKILL)  # mpirun and what it has started
    while job.poll() is None and not set(ranks_of(job)) - set(ranks):
        time.sleep(0.01)
    again = [*ranks, *ranks_of(job)]
    job.kill()
    _, err = job.communicate(timeout=300)
    assert "SIGKILL" in err
    for _ in range(12_000):
        if not any(map(is_alive, again)):
            break
        time.sleep(0.01)
    assert not any(map(is_alive, again))
    job = launch(folder, "-n", 3, *training("killed"))
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert weights(folder, "killed") == undisturbed


def test_told_to_stop_and_started_again(folder, undisturbed):
    job = launch(folder, "-n", 3, *training("stopped"))
    wait_for_checkpoint(folder, "stopped", job)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=300)
    assert job.returncode == 75, err
    assert "ended    after step" in out and "again" not in err
    job = launch(folder, "-n", 3, *training("stopped"))
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert weights(folder, "stopped") == undisturbed


def test_given_up(folder):
    job = launch(folder, "-n", 3, "--launcher", "sh -c 'exit 9'", *training("never"))
    _, err = job.communicate(timeout=300)
    assert job.returncode == 9
    last = err.splitlines()[-1]
    assert "given up" in last and "twice without a checkpoint in between" in last


def test_error_of_the_user_is_not_repeated(folder):
    words = [*training("wrong"), "data.target=z"]
    job = launch(folder, "-n", 2, *words)
    _, err = job.communicate(timeout=300)
    assert job.returncode == 2
    told = [line for line in err.splitlines() if line.startswith("pympi-train: ")]
    assert "'z'" in told[0] and "again" not in err  # Open MPI adds lines of its own


@pytest.mark.parametrize(
    "words, env, message",
    [
        (["-n", 2, "--", "train", "none.toml"], {}, "none.toml: No such file"),
        (["-n", 2, *training("x"), "train.epoch=3"], {}, "train.epoch"),
        (["-n", 2, "--launcher", "no-mpirun", *training("x")], {}, "--launcher"),
        (["-n", 2, *training("x")], {"PMI_SIZE": "2"}, "leave out mpirun or srun"),
        (
            ["-n", 9, "--min-ranks", 3, "--launcher", "./mpirun", *training("x")],
            {},
            "cannot start 3 ranks",
        ),
    ],
)
def test_refused(folder, words, env, message):
    (folder / "lost").touch()
    job = launch(folder, *words, env=env)
    _, err = job.communicate(timeout=300)
    assert job.returncode == 2
    assert message in err.splitlines()[-1]
    assert not (folder / "x").exists()


def test_faults():
    done = subprocess.run(
        [sys.executable, "scripts/dev/faults", "--runs", "6", "--seed", "4"],
        cwd=mpi_launch.ROOT,
        env=mpi_launch.environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 6 runs failed" in done.stdout
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if "|" in line]
    assert rows[0][2].strip() == "struck"
    assert sum(int(row[2]) for row in rows[2:]) >= 1
