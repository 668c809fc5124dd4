"""Ranks of a pool that are killed, stopped, or fail alone."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from mpi_launch import Job, tagged
from small_runs import write_rows

from pympi_train.checkpoint import store

CONFIG = """
[data]
train = "rows.npz"
validation = 0.2
[model]
kind = "softmax"
dtype = "float64"
[train]
epochs = 3
batch_size = 16
backend = "numpy"
[parallel]
reduction = "exact"
[checkpoint]
every_s = 0.5
"""
JOBS = """
[pool]
directory = "{0}"
[[job]]
name = "short"
config = "c.toml"
sweep = {{ train.seed = [1, 2, 3, 4] }}
max_ranks = 1
[[job]]
name = "long"
config = "c.toml"
set = {{ train.epochs = 200 }}
"""
# The program, which also prints the steps that a job has done when its ranks begin.
# With SLOW, the long job takes so long that what disturbs it does not come too late.
NOTED = """
import os, runpy, time
from pympi_train.runs import job

fit = job._fit

def noted(course, trainer, *rest):
    directory, add_step = course.config.output.directory, course.attempt.add_step

    def slow():
        time.sleep(0.01)
        add_step()

    if "SLOW" in os.environ and directory.endswith("long"):
        course.attempt.add_step = slow
    os.write(1, f"begins {directory} {trainer.steps}\\n".encode())  # whole lines
    return fit(course, trainer, *rest)

job._fit = noted
runpy.run_module("pympi_train", run_name="__main__", alter_sys=True)
"""
# A job in which rank 2 fails alone, never answers or never comes, beside another one.
ALONE = """
import sys, time
import pympi_train as pt
from pympi_train.config.config import parse
from pympi_train.optim.adam import Adam
from pympi_train.pool import agent, group
from mpi4py import MPI

update, n_left = Adam.update, [3]

def planted(self, *args, **kwargs):
    is_bad = MPI.COMM_WORLD.rank == 2 and self.lr == 0.125
    n_left[0] -= is_bad
    if is_bad and n_left[0] == 0:
        if sys.argv[1] == "raises":
            raise ValueError("planted")
        time.sleep(1000)
    return update(self, *args, **kwargs)

Adam.update = planted
if sys.argv[1] == "absent":
    group.LATE_S = 3.0
    if MPI.COMM_WORLD.rank == 2:
        agent.group_of = lambda *args: time.sleep(1000)
text = open("c.toml").read()

def config(name, *overrides):
    where = f"output.directory={sys.argv[1]}/{name}"
    return parse(text, folder=".", overrides=[where, *overrides])

with pt.Pool(directory=sys.argv[1]) as pool:
    if pool is not None:
        limit_s = 60 if sys.argv[1] == "raises" else 3
        wrong = ["optimizer.learning_rate=0.125", f"parallel.timeout_s={limit_s}"]
        n = 3 if sys.argv[1] == "all" else 2
        bad = pool.submit(config("bad", *wrong), min_ranks=n, max_ranks=n, name="bad")
        good = pool.submit(config("good"), max_ranks=1, name="good")
        wide = pool.submit(config("wide"), min_ranks=3, name="wide", after=[good])
        small = pool.submit(config("small"), max_ranks=1, name="small", after=[good])
        print(good.result()["weights_sha256"])
        print(bad.exception())
        print(wide.exception(), small.exception())
        again = pool.submit(config("again"), max_ranks=1, name="again")
        print(again.result()["weights_sha256"])
"""

# Signal, and the rank that gets it.
DISTURBED = {
    "killed": (signal.SIGKILL, 2),
    "killed-0": (signal.SIGKILL, 0),
    "stopped": (signal.SIGTERM, 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool")
    write_rows(path)
    (path / "c.toml").write_text(CONFIG)
    (path / "alone.py").write_text(ALONE)
    (path / "noted.py").write_text(NOTED)
    for name in ("whole", *DISTURBED):
        (path / f"{name}.toml").write_text(JOBS.format(name))
    return path


def argv(name):
    return [sys.executable, "noted.py", "pool", f"{name}.toml", "--resume"]


def hashes(folder):
    """The hash of the weights of each job that is finished, by name."""
    found = {}
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "end" and event["status"] == "finished":
            assert event["job"] not in found  # a finished job is not done again
            found[event["job"]] = event["result"]["weights_sha256"]
    return found


@pytest.fixture(scope="module")
def undisturbed(folder, mpirun):
    done = mpirun(2, argv("whole"), cwd=folder, timeout=300)
    assert done.returncode == 0, done
    return hashes(folder / "whole")


def wait_for_checkpoint(folder, job):
    for _ in range(30000):
        if store.entries(folder / "jobs" / "long" / "checkpoints"):
            return
        assert job.wait(0.01) is None, job.output()
    raise AssertionError(job.output())


@pytest.mark.parametrize("name", DISTURBED)
def test_a_pool_goes_on(folder, undisturbed, mpirun, name):
    """After the loss of a rank, and after a signal to a single one.

    It goes on without a thread that coordinates in the last case.
    """
    number, rank = DISTURBED[name]
    with Job(3, argv(name), cwd=folder, env={"SLOW": "1"}) as job:
        wait_for_checkpoint(folder / name, job)
        (pid,) = (pid for pid in tagged(job.tag) if rank_of(pid) == rank)
        os.kill(pid, number)
        status = job.wait(300)
        assert status == 75 if number == signal.SIGTERM else status, job.output()
    newest = store.entries(folder / name / "jobs" / "long" / "checkpoints")[-1]
    env = {"MPI4PY_RC_THREAD_LEVEL": "serialized"} if name == "stopped" else {}
    done = mpirun(2, argv(name), cwd=folder, env=env, timeout=300)
    assert done.returncode == 0, done
    assert hashes(folder / name) == undisturbed
    begun = re.findall(r"^begins .*/long (\d+)$", done.stdout, re.MULTILINE)
    assert begun and min(map(int, begun)) == newest.step > 0, done.stdout


def rank_of(pid):
    """Return the rank of a process of the pool; None for the launcher's processes."""
    words, variables = (
        Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")
        for name in ("cmdline", "environ")
    )
    if words[:2] != [os.fsencode(sys.executable), b"noted.py"]:
        return None
    told = dict(variable.partition(b"=")[::2] for variable in variables)
    return int(told.get(b"PMI_RANK", told.get(b"OMPI_COMM_WORLD_RANK")))


@pytest.mark.parametrize("how", ["raises", "sleeps", "absent"])
def test_a_rank_that_is_lost(folder, undisturbed, mpirun, how):
    """Its job is given up with the reason, and the others end as they should."""
    done = mpirun(3, [sys.executable, "alone.py", how], cwd=folder, timeout=300)
    assert done.returncode != 0
    good, bad, wide, again = done.stdout.splitlines()[:4]
    told = {"raises": "ValueError: planted", "sleeps": "what its watchdog has printed"}
    told["absent"] = "together with rank 2: one of them hangs or is gone"
    assert bad.startswith("job bad: failed: ") and bad.endswith(told[how]), done
    n_lost = 1 if how == "raises" else 2  # a rank that raised can work again
    assert f"too few ranks are left: {n_lost} hang or have ended" in wide
    assert wide.endswith(" None")  # there is room for the other one
    assert good == again and len(good) == 64
    assert "rank 1 of 2" in done.stderr or how != "sleeps"  # the watchdog's report


def test_rank_0_is_lost(folder, mpirun):
    """Nobody can go on then: the program ends, and says why."""
    done = mpirun(3, [sys.executable, "alone.py", "all"], cwd=folder, timeout=300)
    assert done.returncode != 0 and not done.stdout
    assert "rank 0 hangs in a job that was given up" in done.stderr
    lines = (folder / "all" / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["status"] == "interrupted"
