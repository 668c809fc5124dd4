"""``pympi-train slurm`` with programs in the place of SLURM's."""

import json
import os
import sys
from pathlib import Path

import pytest
import slurm_jobs

from pympi_train.cli import main
from pympi_train.slurm import jobs

MPI_LIST = """MPI plugin types are...
\tpmix
\tnone
\tpmi2
specific pmix plugin versions available: pmix_v4
"""
SHAPE = ["--nodes", "2", "--ntasks-per-node", "2", "--time", "00:10:00"]
VARY = ["--vary", "optimizer.learning_rate", "0.1", "0.01"]
PROGRAMS = {
    "srun": f"cat <<'END' >&2\n{MPI_LIST}END",
    "sinfo": "echo 'a|down|1:00|1|1|(null)'; echo 'b*|up|1:00|4|64+|gpu:a100:4'",
    "sbatch": "[ $1 = --test-only ] || echo '12;cluster'",
    "squeue": "cat states; echo >states",
    "scontrol": "echo 'JobId=12 JobName=x'; echo ' JobState=FAILED ExitCode=2:0'; "
    "echo ' StdOut=/x y.out'",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a configuration, and programs on PATH."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        put(tmp_path, name, text)
    (tmp_path / "my run.toml").write_text(slurm_jobs.CONFIG)
    (tmp_path / "states").write_text("12|PENDING|Priority\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    for name in list(os.environ):
        if name.startswith(("SLURM_", "PMI_")):
            monkeypatch.delenv(name)
    return tmp_path


def put(folder, name, text):
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / "bin" / name).chmod(0o755)


def call(*words):
    return main(["slurm", "my run.toml", *words])


def test_script_is_written_once_and_an_earlier_one_kept(folder, capsys):
    assert call(*SHAPE) == 0
    text = (folder / "my_run.sbatch").read_text()
    assert f"    '{folder}/my run.toml'\n" in text
    assert f"    {sys.executable} -m pympi_train train\n" in text
    assert f"checkpoints={folder}/run/checkpoints\n" in text
    assert call(*SHAPE) == 0
    assert not Path("my_run.sbatch~").exists()
    assert call(*SHAPE, "--account", "a", "--set", "train.epochs=3") == 0
    assert "--set train.epochs=3\n" in Path("my_run.sbatch").read_text()
    assert Path("my_run.sbatch~").read_text() == text
    assert "the earlier one is my_run.sbatch~" in capsys.readouterr().out


def test_file_that_is_no_script_stays(folder, capsys):
    before = Path("my run.toml").read_text()
    assert call(*SHAPE, "--output", "my run.toml") == 2
    assert "my run.toml is there, and is no script: name" in capsys.readouterr().err
    assert Path("my run.toml").read_text() == before


def test_job_is_followed_to_its_end(folder, capsys):
    assert call(*SHAPE, "--wait", "--json") == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["job"] == "12"
    task = {"id": "12", "state": "FAILED", "exit_status": 2, "output": "/x y.out"}
    assert told["tasks"] == [task]
    assert "job 12 pending: Priority" in said.err
    assert "job 12 failed, exit status 2; its output: /x y.out" in said.err


def test_refusal_of_sbatch_is_said(folder, capsys):
    put(folder, "sbatch", "echo 'sbatch: error: no such account' >&2; exit 1")
    assert call(*SHAPE, "--submit") == 2
    said = capsys.readouterr().err
    assert said == "pympi-train: sbatch refuses my_run.sbatch: no such account\n"


def test_defaults_of_the_site(folder, capsys):
    assert main(["slurm", "--init"]) == 0
    path = folder / ".config" / "pympi-train" / "site.toml"
    text = path.read_text()
    assert "#     b: 4 nodes of 64 CPUs, 4 GPUs, at most 1:00\n" in text
    assert text.endswith('\npartition = "b"\ncpus_per_node = 64\n')
    path.write_text(text + 'account = "abc"\nmodules = ["gcc/13"]\nmpi = "pmix"\n')
    assert call(*SHAPE, "--account", "other") == 0
    made = (folder / "my_run.sbatch").read_text()
    for line in ("--partition=b", "--cpus-per-task=32", "--account=other"):
        assert f"\n#SBATCH {line}\n" in made
    assert "module load gcc/13 || exit 1\n" in made and "srun --mpi=pmix" in made
    assert main(["slurm", "--init"]) == 2
    assert "is there already" in capsys.readouterr().err
    path.write_text("cluster = 1\n")
    assert call(*SHAPE) == 2
    assert "unknown key 'cluster'; known: nodes" in capsys.readouterr().err


def test_elastic_that_the_job_cannot_do(folder, capsys):
    assert call(*SHAPE, "--set", "elastic.ranks=9999") == 2
    assert "[elastic] ranks = 9999, but the job has" in capsys.readouterr().err
    assert call(*SHAPE, "--set", "elastic.survive=true") == 2
    assert "starts the ranks by srun" in capsys.readouterr().err
    assert not (folder / "my_run.sbatch").exists()


def test_plugin_that_is_missing_is_said(folder, capsys):
    put(folder, "srun", "echo 'srun: MPI types are...'; echo 'srun: none'")
    assert call(*SHAPE) == 2
    assert "and this SLURM has only: none. Load" in capsys.readouterr().err
    assert call(*SHAPE, "--mpi", "pmi1") == 0
    (folder / "bin" / "srun").unlink()
    if not any(Path(p, "srun").exists() for p in os.environ["PATH"].split(":")):
        assert call(*SHAPE) == 2
        assert "srun is not on PATH: call this on a login" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, complaint",
    [
        ([], "--nodes is required"),
        ([*SHAPE, "--set", "model.kind=x"], "[model] kind"),
        ([*SHAPE, "--vary", "a b", "1"], "--vary a b: expected a key and its values"),
        ([*SHAPE, *VARY[:2]], "--vary optimizer.learning_rate: expected a key and"),
        ([*SHAPE, *VARY, "-1"], "learning_rate"),
        ([*SHAPE, *VARY, "--array", "0-5"], "task 2 has no value"),
        ([*SHAPE, *VARY, "--set", "checkpoint.directory=x"], "would share it"),
        ([*SHAPE, "--mpi", "a b"], "--mpi 'a b': expected a name"),
        ([*SHAPE, "--output", "no/such/x"], "no/such/x cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(folder, capsys, words, complaint):
    assert call(*words) == 2
    said = capsys.readouterr().err
    assert complaint in said and len(said.splitlines()) == 1


def test_plugin_that_cannot_be_loaded_is_said(folder, capsys):
    wrong = "srun: error: can not load it\nsrun: error: Invalid MPI type 'pmi2'"
    lists = "[ $1 = --mpi=list ] && echo pmi2,pmix"
    put(folder, "srun", f'{lists} || echo "{wrong}" >&2')
    assert call(*SHAPE) == 2
    said = capsys.readouterr().err
    assert "does not start here, although `srun --mpi=list` names it: can not" in said
    assert "can not load it; Invalid MPI type 'pmi2'. Tell the" in said
    assert not Path("my_run.sbatch").exists()
    put(folder, "srun", f"{lists} || echo no account >&2")
    assert call(*SHAPE) == 0


def test_srun_without_a_configuration(folder, capsys):
    put(folder, "srun", "echo 'srun: fatal: no configuration source' >&2; exit 1")
    assert call(*SHAPE) == 2
    assert capsys.readouterr().err == (
        "pympi-train: srun failed: fatal: no configuration source; call this on a "
        "login node of the cluster, or name srun's plugin by --mpi PLUGIN\n"
    )
    assert call(*SHAPE, "--mpi", "pmix") == 0


def test_library_that_is_not_known(folder, monkeypatch, capsys):
    put(folder, "python", "echo Other 1")
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    assert call(*SHAPE) == 2
    said = capsys.readouterr().err
    assert said == (
        "pympi-train: unknown MPI library 'Other 1': "
        "name srun's plugin by --mpi PLUGIN\n"
    )


def test_array_of_values(folder, capsys):
    assert call(*SHAPE, *VARY, "--vary", "train.seed", "1", "2") == 0
    text = (folder / "my_run.sbatch").read_text()
    assert "#SBATCH --array=0-1\n" in text
    assert '--set train.seed="${values_1[$SLURM_ARRAY_TASK_ID]}"\n' in text
