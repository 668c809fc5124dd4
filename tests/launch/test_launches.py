"""Launches with cores of their own, and every way in which one can end."""

import os
import signal
import sys
import threading

import pytest

from pympi_train.errors import ConfigError
from pympi_train.launch import cores, launched
from pympi_train.launch.launchers import Launcher
from pympi_train.launch.launches import Launches, LaunchInterrupted
from pympi_train.mpi_libraries import MPICH, OPEN_MPI

SLEEPS = "print('pympi-train: step 3', flush=True); import time; time.sleep(600)"


def test_cores_of_a_rank(monkeypatch):
    monkeypatch.setattr(cores, "affinity", lambda: set(range(16)))
    wanted = ([1, 2, 4], 4), ([1, 3], 5), ([1, 64], 16), ([32], 1), ([16], 1)
    for ranks, want in wanted:
        assert cores.cores_of(ranks, None, {}) == want
    assert cores.cores_of([1, 2], 3, {}) == 3
    job = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "6"}
    assert cores.cores_of([1, 2], None, job) == 6
    with pytest.raises(ConfigError, match="SLURM_CPUS_PER_TASK='x'"):
        cores.cores_of([1], None, {**job, "SLURM_CPUS_PER_TASK": "x"})
    assert cores.binding(MPICH, 4, 4) == ["-bind-to", "core:4"]
    assert cores.binding(MPICH, 5, 4) == [] == cores.binding(None, 1, 1)
    assert cores.binding(OPEN_MPI, 2, 4)[:2] == ["--map-by", "slot:PE=4"]
    assert cores.binding(OPEN_MPI, 17, 1) == ["--map-by", ":OVERSUBSCRIBE"]
    assert cores.with_threads(["x"], 3)[:2] == ["env", "OMP_NUM_THREADS=3"]


@pytest.mark.parametrize(
    "tasks, n_ranks, nodes",
    [("4(x2)", 1, 1), ("4(x2)", 4, 1), ("4(x2)", 5, 2), ("4", 4, 1), ("1(x99)", 9, 9)],
)
def test_srun_fills_one_node_after_another(tasks, n_ranks, nodes):
    words = cores.binding("srun", n_ranks, 2, {"SLURM_TASKS_PER_NODE": tasks})
    assert words == ["--cpu-bind=cores", "--cpus-per-task=2", f"--nodes={nodes}"]


def test_nodes_with_different_numbers_of_tasks_are_left_to_srun():
    for environ in ({}, {"SLURM_TASKS_PER_NODE": "4(x2),1"}):
        assert len(cores.binding("srun", 2, 1, environ)) == 2


def test_more_ranks_than_tasks_of_the_job():
    cores.require_tasks([1, 4], {"SLURM_NTASKS": "4"})
    cores.require_tasks([1, 4], {})
    with pytest.raises(ConfigError, match="--ranks 5: this job has 4 tasks"):
        cores.require_tasks([1, 5], {"SLURM_NTASKS": "4"})


def run(code, log, timeout_s=60):
    """Run Python code in the place of a launcher."""
    launcher = Launcher((sys.executable, "-c", code), "made")
    with Launches(launcher, None, 1, timeout_s) as launches:
        return launches.run(2, ["train", "c.toml"], log)


def test_launcher_gets_ranks_threads_and_program(tmp_path):
    assert run("import sys; print(sys.argv[1:])", tmp_path / "log") is None
    told = (tmp_path / "log").read_text()
    assert "['-n', '2', 'env', 'OMP_NUM_THREADS=1'" in told
    assert told.rstrip().endswith("'train', 'c.toml']")


@pytest.mark.parametrize(
    "code, told",
    [
        ("import os; os.kill(os.getpid(), 9)", "the ranks ended with status 137"),
        ("import sys; sys.exit('pympi-train: no rows\\n')", "no rows"),
        ("import sys; print('x'); sys.exit('last')", "last"),
        (SLEEPS, "no end within 1 s: step 3"),
    ],
)
def test_reason_of_a_failure(code, told, tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "LAST_WORDS_S", 0.1)
    assert run(code, tmp_path / "log", 1 if code == SLEEPS else 60).startswith(told)


def test_signal_ends_the_launch(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGTERM])
    timer.start()
    with pytest.raises(LaunchInterrupted, match="SIGTERM"):
        run(SLEEPS, tmp_path / "log")
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before
