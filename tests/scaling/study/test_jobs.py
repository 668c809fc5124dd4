"""Jobs of a study, with programs in the place of SLURM's: `sbatch` runs the script."""

import json
import os
import sys

import pytest
from studies import make_study

from pympi_train.cli import main
from pympi_train.errors import ConfigError, LaunchError
from pympi_train.launch.launches import LaunchInterrupted
from pympi_train.scaling.study.jobs import StudyJobs, job_request, measure_by_jobs
from pympi_train.scaling.study.plan import StudyCase
from pympi_train.scaling.study.record import Study
from pympi_train.slurm import jobs
from pympi_train.slurm.request import JobRequest

REQUEST = JobRequest(nodes=1, ntasks_per_node=4, time="00:10:00", cpus_per_task=2)
PROGRAMS = {
    # Number 10 is the first job. It has ended when sbatch returns.
    "sbatch": """[ $1 = --test-only ] && exit
cd "${2#--chdir=}" || exit 1
echo $(($(cat "$STUBS/last") + 1)) >"$STUBS/last"
number=$(cat "$STUBS/last")
name=$(sed -n 's/.*--job-name=//p' "$3")
bash "$3" >"$PWD/$name-$number.out" 2>&1
status=$?
echo "JobId=$number JobState=$(cat "$STUBS/state") ExitCode=$status:0
 StdOut=$PWD/$name-$number.out" >"$STUBS/$number"
echo $number""",
    "squeue": 'cat "$STUBS/queue"',
    "scontrol": 'cat "$STUBS/$3"',
}
CASES = [StudyCase("strong", "allreduce", n, 0) for n in (1, 4, 8)]
ABOUT = {k: v for k, v in make_study(ranks=()).items() if not isinstance(v, list)}


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """The folder of the programs, and of the files by which a test steers them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    for name, text in {"last": "9", "state": "COMPLETED", "queue": ""}.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("STUBS", str(folder))
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    return folder


def copies(tmp_path, **made):
    """StudyJobs whose job on N ranks copies part-N, if the test has made it."""
    for n_ranks in (1, 4, 8):
        part = make_study(ranks=(n_ranks,), repeats=1, **made)
        (tmp_path / f"part-{n_ranks}").write_text(json.dumps(part))
    return StudyJobs(tmp_path / "a b.jobs", "s", REQUEST, lambda n, path: [
        *["cp", str(tmp_path / f"part-{n}"), path]
    ])


def study_of(tmp_path):
    return Study(tmp_path / "out.json", {**ABOUT, "machine": None, "mpi": None})


def measure(tmp_path, study_jobs, told=None):
    """Measure in a study that is read anew; return it and the number of failures."""
    study, say = study_of(tmp_path), (told if told is not None else []).append
    return study, measure_by_jobs(study, CASES, study_jobs, say)


def errors_of(study):
    return {m["ranks"]: m["error"] for m in study.content["measurements"]}


def test_nodes_of_a_job():
    asked = {n: job_request(REQUEST, n) for n in (1, 4, 5, 8, 9)}
    found = {n: (r.nodes, r.ntasks_per_node) for n, r in asked.items()}
    assert found == {1: (1, 1), 4: (1, 4), 5: (2, 3), 8: (2, 4), 9: (3, 3)}
    assert asked[9].cpus_per_task == 2


def test_parts_become_one_study(stubs, tmp_path):
    told = []
    study, n_failed = measure(tmp_path, copies(tmp_path), told)
    assert n_failed == 0 and [study.find(case)["ranks"] for case in CASES] == [1, 4, 8]
    assert study.content["machine"] == ABOUT["machine"]
    assert study.content["jobs"] == {"1": "10", "4": "11", "8": "12"}
    assert "job 12, 8 ranks: submitted, 2 nodes" in told
    script = (tmp_path / "a b.jobs" / "ranks-8.sbatch").read_text()
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in script
    again = []
    assert measure(tmp_path, copies(tmp_path), again)[0].content == study.content
    assert again == ["3 of 3 cases were measured before"]


def test_job_that_fails_is_submitted_again(stubs, tmp_path):
    study_jobs, told = copies(tmp_path), []
    (tmp_path / "part-4").unlink()
    study, n_failed = measure(tmp_path, study_jobs, told)
    assert n_failed == 1
    error = errors_of(study)[4]
    assert error.startswith("job 11 completed, exit status 1: cp: cannot stat")
    assert error.endswith(f"its output: {tmp_path}/a b.jobs/s-4-11.out")
    assert f"{CASES[1]}: failed: {error}" in told
    study, n_failed = measure(tmp_path, copies(tmp_path), told)
    assert n_failed == 0 and study.content["jobs"]["4"] == "13"
    assert "job 13 completed: 1 of 1 cases measured" in told


@pytest.mark.parametrize(
    "state, cause", [("FAILED", "no rows"), ("TIMEOUT", "job 10 timeout, exit")]
)
def test_cause_of_a_case_that_failed_within_its_job(stubs, tmp_path, state, cause):
    study_jobs = copies(tmp_path)
    part = json.loads((tmp_path / "part-1").read_text())
    part["measurements"] = [{**part["measurements"][0], "error": "no rows"}]
    (tmp_path / "part-1").write_text(json.dumps(part))
    (stubs / "state").write_text(state)
    study, n_failed = measure(tmp_path, study_jobs)
    assert n_failed == 1
    errors = errors_of(study)
    assert errors[1].startswith(cause) and errors[4] is errors[8] is None


def test_nodes_of_another_kind_are_refused(stubs, tmp_path):
    study_jobs = copies(tmp_path)
    machine = {"cpu": {"model": "other"}}
    part = {**json.loads((tmp_path / "part-8").read_text()), "machine": machine}
    (tmp_path / "part-8").write_text(json.dumps(part))
    study, n_failed = measure(tmp_path, study_jobs)
    assert n_failed == 1
    assert "its machine differs" in errors_of(study)[8]
    with pytest.raises(ConfigError, match="ranks-8.json: its machine differs"):
        measure(tmp_path, study_jobs)  # before anything is submitted
    assert (stubs / "last").read_text() == "12\n"


def test_nothing_measured(stubs, tmp_path):
    nothing = StudyJobs(tmp_path / "j", "s", REQUEST, lambda n, path: ["false"])
    with pytest.raises(LaunchError, match="nothing was measured: job 10 completed"):
        measure(tmp_path, nothing)
    (stubs / "sbatch").write_text("#!/bin/sh\necho no such account >&2; exit 1\n")
    with pytest.raises(LaunchError, match="ranks-1.sbatch: no such account"):
        measure(tmp_path, nothing)


@pytest.mark.parametrize("error", [LaunchInterrupted("SIGINT"), LaunchError("busy")])
def test_jobs_in_the_queue_are_not_submitted_again(
    stubs, tmp_path, monkeypatch, error
):
    def interrupt(stop, seconds):
        if seconds:
            raise error

    told = []
    monkeypatch.setattr("pympi_train.scaling.study.jobs._pause", interrupt)
    (stubs / "queue").write_text("10|RUNNING|s-1\n")
    nothing = StudyJobs(tmp_path / "j", "s", REQUEST, lambda n, path: ["true"])
    with pytest.raises(type(error)):
        measure_by_jobs(study_of(tmp_path), CASES[:1], nothing, told.append)
    assert told[-1] == (
        "still in the queue: job 10. The same command waits for what is measured "
        "there; to end it: scancel 10"
    )
    (stubs / "queue").write_text("RUNNING|s-1\n")
    assert nothing.start(1, told.append) == "10"
    (stubs / "queue").write_text("RUNNING|of somebody else\n")
    assert nothing.start(1, told.append) == "11"


SLURM = ["--launcher", "slurm", "--ntasks-per-node", "2", "--time", "00:10:00"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--time", "00:10:00"], "--time is for --launcher slurm"),
        (SLURM[:2], "--ntasks-per-node is required"),
        ([*SLURM, "--time", "1h"], "--time '1h': expected hours"),
        ([*SLURM, "--partition", "a b"], "--partition 'a b': expected a name"),
        ([*SLURM, "--mpi", "$(x)"], "--mpi '$(x)': expected a name"),
        ([*SLURM, "--module", "a;b"], "--module 'a;b': expected a name"),
    ],
)
def test_arguments(stubs, tmp_path, monkeypatch, capsys, words, told):
    from small_runs import TEXT

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(TEXT)
    assert main(["scaling", "c.toml", *words]) == 2
    assert told in capsys.readouterr().err
    assert (stubs / "last").read_text() == "9"


def test_words_of_a_job(stubs, tmp_path, monkeypatch, capsys):
    """Those that the parser reads back, with defaults of the site."""
    from small_runs import TEXT

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(TEXT)
    site = tmp_path / ".config" / "pympi-train" / "site.toml"
    site.parent.mkdir(parents=True)
    site.write_text('mpi = "pmix"\npartition = "p"\ncpus_per_node = 16\n')
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    words = ["--ranks", "3", "--set", "output.directory=a b;x", "model.hidden=[4]"]
    assert main(["scaling", "c.toml", *SLURM, *words, "--mode", "both"]) == 2
    assert "nothing was measured: job 10 completed" in capsys.readouterr().err
    text = (tmp_path / "scaling.jobs" / "ranks-3.sbatch").read_text()
    for option in ("nodes=2", "ntasks-per-node=2", "cpus-per-task=8", "partition=p"):
        assert f"#SBATCH --{option}\n" in text
    (output,) = (tmp_path / "scaling.jobs").glob("*.out")
    said = output.read_text()
    assert said.startswith(f"-m pympi_train scaling {tmp_path}/c.toml --set ")
    for told in (
        "--set output.directory=a b;x model.hidden=[4] --ranks 3 --mode both",
        "--cores-per-rank 8 --launcher srun --mpi=pmix --kill-on-bad-exit=1",
        f"--output {tmp_path}/scaling.jobs/ranks-3.json",
    ):
        assert told in said
