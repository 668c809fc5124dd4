"""The batch script of one command, run by bash; what it asks for."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_words import NASTY, TEXT

from pympi_train.slurm.command import command_script
from pympi_train.slurm.request import JobRequest

PROGRAM = '#!/bin/sh\npwd >"$OUT/pwd"\nprintf "%s\\0" "$@" >"$OUT/words"\n'
REQUEST = JobRequest(nodes=2, ntasks_per_node=3, time="00:10:00", cpus_per_task=4)


def words_of(tmp_path, words, name):
    """The words that a program gets from the script, in a folder of this name."""
    folder = tmp_path / "folder" / name
    folder.mkdir(parents=True, exist_ok=True)
    program = tmp_path / "a program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    text = command_script(REQUEST, "s-6", str(folder), [str(program), *words], "About.")
    env = {"PATH": "/usr/bin:/bin", "OUT": str(tmp_path)}
    how = {"env": env, "cwd": tmp_path, "capture_output": True}
    done = subprocess.run(["bash"], input=text.encode(), **how)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "pwd").read_bytes().decode() == f"{folder}\n"
    assert len([line for line in text.split("\n") if line.startswith("#SBATCH")]) == 9
    assert not list(tmp_path.rglob("injected"))
    return (tmp_path / "words").read_bytes().decode().split("\0")[:-1]


@given(st.lists(TEXT, min_size=1, max_size=4))
@settings(max_examples=25)
def test_no_word_injects_anything(tmp_path_factory, words):
    assert words_of(tmp_path_factory.mktemp("any"), words, "plain") == words


@pytest.mark.parametrize("text", NASTY)
def test_no_nasty_word_or_folder_injects_anything(tmp_path, text):
    assert words_of(tmp_path, [text, text], text) == [text, text]


def test_what_the_job_asks_for():
    request = JobRequest(
        nodes=2,
        ntasks_per_node=3,
        time="00:10:00",
        cpus_per_task=4,
        gpus_per_node=2,
        partition="a,b",
        account="abc",
        modules=("mpi/5",),
    )
    lines = command_script(request, "s-6", "/x", ["run"], "About.").splitlines()
    assert [line for line in lines if line and not line.startswith("# ")] == [
        "#!/bin/bash -l",
        "#SBATCH --job-name=s-6",
        "#SBATCH --output=s-6-%j.out",
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=3",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --time=00:10:00",
        "#SBATCH --partition=a,b",
        "#SBATCH --account=abc",
        "#SBATCH --exclusive",
        "#SBATCH --requeue",
        "module load mpi/5 || exit 1",
        "cd -- /x || exit 1",
        "export SLURM_GPU_BIND=none",
        "exec run",
    ]
