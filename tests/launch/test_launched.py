"""Nothing is left of a job: no process, no shared memory."""

import mmap
import os
import subprocess
import sys
import time

import pytest

from pympi_train.launch import launched
from pympi_train.launch.launched import Launched, tagged_processes
from pympi_train.launch.leftovers import remove_session, remove_shared_memory

LIVES = "import time; time.sleep(600)"
# A rank that is in a session of its own, as MPICH has it, and does not end by SIGTERM.
MAKES_RANK = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {LIVES!r}], start_new_session=True)
"""


def python(code):
    return [sys.executable, "-c", code]


def wait_until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened within 30 s")


@pytest.mark.parametrize("then", ["", "sys.exit(9)", "import time; time.sleep(600)"])
def test_ranks_of_a_dead_launcher_are_killed(then, monkeypatch):
    monkeypatch.setattr(launched, "LAST_WORDS_S", 0.1)
    with Launched(python(MAKES_RANK + then)) as job:
        wait_until(lambda: len(tagged_processes(job._tag)) == 1 + ("600" in then))
        status = job.wait(0.1 if "600" in then else 60)
        assert status == (None if "600" in then else 9 if then else 0)
        assert tagged_processes(job._tag)
    assert not tagged_processes(job._tag)


def test_status_of_a_launcher_that_was_killed():
    with Launched(python(LIVES)) as job:
        job.send(9)
        assert job.wait(60) == 137


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_launcher_ends_with_its_parent():
    code = (
        "import os, sys\n"
        "from pympi_train.launch.launched import Launched\n"
        f"job = Launched([sys.executable, '-c', {LIVES!r}])\n"
        "print(job._tag, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(python(code), capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    wait_until(lambda: not tagged_processes(done.stdout.strip()))


def test_shared_memory(tmp_path):
    names = ["mpich_shm_1", "sm_segment.a", "mpich_shm_used", "mine"]
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 100)
    (tmp_path / "sm_segment.open").touch()
    began_s = (tmp_path / "mpich_shm_1").stat().st_ctime
    with open(tmp_path / "sm_segment.open"), open(tmp_path / names[2], "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
            remove_shared_memory(began_s + 60, str(tmp_path))
            assert len(os.listdir(tmp_path)) == 5  # all are older
            remove_shared_memory(began_s, str(tmp_path))
    left = {"mine", "mpich_shm_used", "sm_segment.open"}
    assert left == set(os.listdir(tmp_path))


def test_folder_of_an_open_mpi_launcher(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours = ["ompi.77/1", f"ompi.node.{os.getuid()}/pid.77"]
    others = ["ompi.777", f"ompi.node.{os.getuid()}/pid.78"]
    for name in (*ours, *others):
        (tmp_path / name).mkdir(parents=True)
    remove_session(77)
    assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in others)
