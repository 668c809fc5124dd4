"""Jobs in a real SLURM: requeued, cut off, pre-empted, cancelled, without a node."""

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import slurm_jobs

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "scripts" / "slurm").glob("*.sbatch"))
grid = pytest.mark.grid


@pytest.fixture(scope="module")
def slurm():
    try:
        found = slurm_jobs.Slurm()
    except slurm_jobs.NoSlurm as error:
        pytest.skip(f"SLURM cannot start here: {error}")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    """The hash of the weights of a training that nothing disturbs, on two ranks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = slurm.submit(folder)
    assert job.wait_for_end() == "COMPLETED", job.output()
    return slurm_jobs.weights_hash(folder / "run")


def ends_undisturbed(job, undisturbed, run="run"):
    assert job.wait_for_end() == "COMPLETED", job.output()
    lines = (job.cwd / run / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines]
    assert epochs == list(range(1, slurm_jobs.EPOCHS + 1))
    assert slurm_jobs.weights_hash(job.cwd / run) == undisturbed


def test_signal_to_one_rank_is_saved_and_requeued_once(slurm, undisturbed, tmp_path):
    job = slurm.submit(tmp_path)
    job.wait_for_steps()
    job.kill(1)
    job.wait_for_restart(1)
    ends_undisturbed(job, undisturbed)
    assert job.restarts == 1
    assert job.output().count('"interrupted": "SIGUSR1"') == 1


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_templates_are_accepted(slurm, template):
    said = slurm.tool("sbatch", "--test-only", template)
    assert "to start at" in said


def test_what_cannot_start_is_said(slurm, tmp_path):
    shape = ["--nodes", 1, "--ntasks-per-node", 1, "--submit", "--time"]
    said = slurm.command(tmp_path, *shape, "00:10:00", "--partition", "no", status=2)
    assert "refuses train.sbatch: invalid partition specified: no;" in said
    said = slurm.command(tmp_path, "--nodes", 9, *shape[2:], "00:10:00")
    assert "the job may not start: allocation failure: Requested node conf" in said
    slurm.tool("scancel", "--user=root")


def test_scaling_study_by_a_job_for_each_number_of_ranks(slurm, tmp_path):
    """Each asks for the nodes it needs; what was measured is not submitted again."""
    (tmp_path / "a study.toml").write_text(slurm_jobs.CONFIG)
    argv = [sys.executable, "-m", "pympi_train", "scaling", "a study.toml"]
    argv += ["--ranks", "1,2", "--repeats", 1, "--steps", 3, "--launcher", "slurm"]
    argv += ["--ntasks-per-node", 1, "--time", "00:05:00", "--set", "model.hidden=[4]"]
    said = slurm.tool(*argv, cwd=tmp_path)
    assert said.count(" completed: 1 of 1 cases measured") == 2
    assert "so their repeats do not alternate" in said
    study = json.loads((tmp_path / "scaling.json").read_text())
    assert not [m["error"] for m in study["measurements"] if m["error"]]
    node_of = {m["ranks"]: m["node_of"] for m in study["measurements"]}
    assert node_of == {1: [0], 2: [0, 1]}
    names = [m["node_names"] for m in study["measurements"] if m["ranks"] == 2]
    assert set(names[0]) <= {"n1", "n2", "n3", "n4"} and len(names[0]) == 2
    assert {one["ranks"] for one in study["exchanges"]} == {2}
    for n_ranks in "12":
        job = slurm_jobs.Job(slurm, study["jobs"][n_ranks], tmp_path)
        assert job.field("NumNodes") == n_ranks
    again = slurm.tool(*argv, cwd=tmp_path)
    assert "2 of 2 cases were measured before" in again and "submitted" not in again


def test_site_defaults(slurm, tmp_path):
    argv = [sys.executable, "-m", "pympi_train", "slurm", "--init"]
    try:
        assert "site.toml: defaults of this site" in slurm.tool(*argv)
        assert "is there already" in slurm.tool(*argv, status=2)
        how = ["--nodes", 1, "--ntasks-per-node", 2, "--time", "00:01:00"]
        slurm.command(tmp_path, *how)
        text = (tmp_path / "train.sbatch").read_text()
        assert "--partition=test\n" in text and "--cpus-per-task=1\n" in text
        assert f"srun --mpi={slurm.plugin} " in text
    finally:
        (slurm.folder / ".config" / "pympi-train" / "site.toml").unlink()


@grid
def test_requeued_by_hand(slurm, undisturbed, tmp_path):
    job = slurm.submit(tmp_path)
    for n in (1, 2):
        job.wait_for_steps()
        slurm.tool("scontrol", "requeue", job.number)
        job.wait_for_restart(n)
    ends_undisturbed(job, undisturbed)


@grid
def test_damaged_newest_checkpoint(slurm, undisturbed, tmp_path):
    """Each start goes on from the one before it, and that is progress."""
    job = slurm.submit(tmp_path, "--set", "checkpoint.every_steps=100")
    for n in (1, 2):
        job.wait(lambda: len(saved_steps(job)) > 1, "two checkpoints")
        job.kill(1)
        job.wait(lambda: job.restarts >= n, f"requeue {n}")
        newest = sorted((tmp_path / "run" / "checkpoints").glob("0*"))[-1]
        (newest / "manifest.json").write_text("damaged")
        job.start_now()
    ends_undisturbed(job, undisturbed)
    assert job.restarts == 2 and "makes no progress" not in job.output()
    assert job.output().count("manifest.json: malformed") >= 2


@grid
def test_time_limit(slurm, tmp_path):
    """It saves before its limit, goes on, and so gets further than one limit allows."""
    how = ["--set", "train.epochs=1000000"]
    job = slurm.submit(tmp_path, *how, time_limit="00:01:00")
    job.wait(lambda: job.restarts == 1, "requeue at the time limit")
    first = saved_steps(job)
    why = '"interrupted": "the time of the job is nearly over"'
    assert first and why in job.output()
    job.start_now()
    job.wait_for_steps()
    slurm.tool("scancel", job.number)
    job.wait(lambda: saved_steps(job)[-1] > first[-1], "checkpoint with more steps")
    assert job.wait_for_end() == "CANCELLED"


def saved_steps(job, run="run"):
    folder = job.cwd / run / "checkpoints"
    return [int(path.name.split("-")[-1]) for path in sorted(folder.glob("0*"))]


@grid
def test_cancelled_job_is_saved_and_stays_cancelled(slurm, undisturbed, tmp_path):
    job = slurm.submit(tmp_path)
    job.wait_for_steps()
    slurm.tool("scancel", job.number)
    assert job.wait_for_end() == "CANCELLED"
    job.wait(lambda: not job.ranks(), "end of the ranks")
    assert saved_steps(job)
    assert (job.state, job.restarts) == ("CANCELLED", 0)
    ends_undisturbed(slurm.submit(tmp_path), undisturbed)  # the same script resumes


@grid
def test_node_that_goes_down(slurm, undisturbed, tmp_path):
    job = slurm.submit(tmp_path, "--set", "checkpoint.every_steps=500")
    job.wait_for_steps()
    job.wait(lambda: saved_steps(job), "checkpoint")
    node = slurm.tool("scontrol", "show", "hostnames", job.field("NodeList")).split()[1]
    change = "scontrol", "update", f"nodename={node}"
    slurm.tool(*change, "state=down", "reason=test")
    try:
        job.wait_for_restart(1)
        ends_undisturbed(job, undisturbed)
    finally:
        slurm.tool(*change, "state=resume", status=None)


@grid
def test_pre_emption(slurm, undisturbed, tmp_path):
    job = slurm.submit(tmp_path, "--partition", "test")
    job.wait_for_steps()
    slurm.tool("srun", "--partition=urgent", "--nodes=4", "--exclusive", "hostname")
    job.wait_for_restart(1)
    ends_undisturbed(job, undisturbed)


@grid
def test_array_of_learning_rates(slurm, tmp_path):
    """Each task has a run of its own, and one of them is requeued alone."""
    rates = ["--vary", "optimizer.learning_rate", "0.001", "0.01"]
    job = slurm.submit(tmp_path, *rates)
    tasks = [slurm_jobs.Job(slurm, f"{job.number}_{i}", tmp_path) for i in (0, 1)]
    tasks[0].wait_for_steps("run/task-0")
    slurm.tool("scancel", "--signal=USR1", f"{job.number}_0")
    tasks[0].wait_for_restart(1)
    assert [task.wait_for_end() for task in tasks] == ["COMPLETED"] * 2, job.output()
    assert [task.restarts for task in tasks] == [1, 0]
    hashes = {slurm_jobs.weights_hash(tmp_path / "run" / f"task-{i}") for i in (0, 1)}
    assert len(hashes) == 2


@grid
def test_ranks_that_would_train_alone_refuse(slurm, tmp_path):
    """By the wrong plugin, MPI starts N jobs of one rank each, with status 0."""
    other = "none" if slurm.plugin == "pmi2" else "pmi2"
    job = slurm.submit(tmp_path, "--mpi", other)
    assert job.wait_for_end() == "FAILED"
    assert "2 ranks" in job.output() and "each would train alone" in job.output()
    assert f"use `srun --mpi={slurm.plugin}`" in job.output()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@grid
def test_container(slurm, undisturbed, tmp_path, monkeypatch):
    """Its ranks receive a signal twice: from SLURM, and from the program between."""
    bin_folder = Path(sys.executable).parent
    image = tmp_path / "an image's $(x).sif"
    image.write_text(f"{tmp_path}:{bin_folder}:/usr/bin:/bin")
    program = tmp_path / "pympi-train"  # of this checkout, whatever is installed
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pympi_train "$@"\n')
    program.chmod(0o755)
    (tmp_path / "apptainer").symlink_to(ROOT / "tests" / "harness" / "apptainer")
    path = f"{tmp_path}:{slurm.env['PATH']}"
    monkeypatch.setitem(slurm.env, "PATH", path)
    job = slurm.submit(tmp_path, "--container", image)
    for n, after_s in ((1, 0.2), (2, 1.5)):
        job.wait(lambda: len(job.ranks()) == 2, "ranks")
        pids = job.ranks().values()
        job.wait(lambda: all(map(slurm_jobs.handles_signals, pids)), "handlers")
        time.sleep(after_s)
        slurm.tool("scancel", "--signal=USR1", job.number)
        job.wait_for_restart(n)
    ends_undisturbed(job, undisturbed)
    assert job.restarts == 2
    assert job.output().count('"interrupted": "SIGUSR1"') == 2


@grid
def test_random_signals(slurm, undisturbed, tmp_path):
    job, rng = slurm.submit(tmp_path), random.Random(5)
    for n in (1, 2, 3):
        number = rng.choice([signal.SIGTERM, signal.SIGUSR1])
        job.kill(rng.randrange(2), number, after_s=rng.uniform(0, 2))
        job.wait_for_restart(n)
    ends_undisturbed(job, undisturbed)
    assert job.restarts == 3
    assert job.output().count('"interrupted": "SIG') == 3
