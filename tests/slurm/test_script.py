"""Batch scripts, run by bash with programs in the place of SLURM's."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nasty_words import NASTY, TEXT

from pympi_train.errors import ConfigError
from pympi_train.slurm.quote import quoted
from pympi_train.slurm.request import JobRequest
from pympi_train.slurm.script import (
    Work,
    batch_script,
    job_name,
    require_variations,
)

REQUEST = JobRequest(nodes=2, ntasks_per_node=2, time="01:00:00")
SRUN = r"""#!/bin/bash
printf '%s\0' "$@" >"$STUBS/srun.words"
[ -e "$STUBS/saved" ] && mkdir -p "$CHECKPOINTS/$(cat "$STUBS/saved")"
cat "$STUBS/result" 2>/dev/null
exit "$(cat "$STUBS/status" 2>/dev/null || echo 0)"
"""
SQUEUE = r"""#!/bin/bash
case $* in *%T*) cat "$STUBS/state" 2>/dev/null || echo RUNNING ;; *) echo NONE ;; esac
"""
# As SLURM does, it ends the script after a requeue.
SCONTROL = '#!/bin/bash\necho "$@" >>"$STUBS/scontrol.words"; kill $PPID; sleep 1\n'
SAVED = '{"interrupted": "SIGUSR1", "step": 5, "new_steps": 5, "epoch": 1}'


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    for name, text in (("srun", SRUN), ("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def clear(stubs):
    for name in ("srun.words", "scontrol.words", "saved", "result", "status", "state"):
        (stubs / name).unlink(missing_ok=True)


def run(stubs, text, **env):
    """Run a script; return (the process, words of srun, words of scontrol)."""
    found = {"PATH": f"{stubs}:{os.environ['PATH']}", "STUBS": str(stubs)}
    found |= {"SLURM_JOB_ID": "7", **env}
    done = subprocess.run(
        ["bash"], input=text.encode(), env=found, cwd=stubs, capture_output=True
    )
    words = []
    if (stubs / "srun.words").exists():
        words = (stubs / "srun.words").read_bytes().decode().split("\0")[:-1]
    path = stubs / "scontrol.words"
    requeued = path.read_text().splitlines() if path.exists() else []
    return done, words, requeued


def work(folder, **values):
    made = {
        "name": "run",
        "folder": str(folder),
        "config": "/c.toml",
        "overrides": (),
        "vary": (),
        "directory": str(folder / "run"),
        "checkpoints": str(folder / "run" / "checkpoints"),
    }
    return Work(**{**made, **values})


@given(st.lists(TEXT, min_size=1, max_size=5))
@example(NASTY)
@settings(max_examples=50)
def test_bash_reads_the_words_back(words):
    text = " ".join(map(quoted, words))
    assert not set(text) & {"\n", "\r"}
    done = subprocess.run(
        ["bash"], input=f"printf '%s\\0' {text}".encode(), capture_output=True
    )
    assert done.stdout.decode().split("\0")[:-1] == words


@given(st.data())
@settings(max_examples=25)
def test_no_value_injects_anything(stubs, data):
    config, override, value = (data.draw(TEXT) for _ in range(3))
    _require_harmless(stubs, config, override, value, "plain")


@pytest.mark.parametrize("text", NASTY)
def test_no_nasty_value_injects_anything(stubs, text):
    _require_harmless(stubs, text, text, text, text)


def _require_harmless(stubs, config, override, value, name):
    clear(stubs)
    folder = stubs / "folder" / name
    folder.mkdir(parents=True, exist_ok=True)
    request = JobRequest(nodes=2, ntasks_per_node=2, time="01:00:00", array="0-1")
    vary = (("optimizer.name", ["other", value]),)
    doing = work(folder, config=config, overrides=(override,), vary=vary)
    text = batch_script(request, doing, "pmi2", "/usr/bin/python 3")
    env = {"SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "1"}
    done, words, _ = run(stubs, text, **env)
    assert (done.returncode, done.stderr) == (0, b"")
    start = words.index("/usr/bin/python 3")
    run_folder = f"{folder}/run/task-1"
    assert words[start + 1 :] == [
        *["-m", "pympi_train", "train", config, "--resume", "--json"],
        *["--set", override, "--set", f"output.directory={run_folder}"],
        *["--set", f"optimizer.name={value}"],
    ]
    directives = [line for line in text.split("\n") if line.startswith("#SBATCH")]
    assert len(directives) == 9
    assert Path(run_folder, "checkpoints").is_dir()
    assert not list(stubs.rglob("injected"))


def test_directives_and_options(tmp_path):
    image = tmp_path / "my image.sif"
    image.touch()
    request = JobRequest(
        nodes=3,
        ntasks_per_node=8,
        time="2-01:00:00",
        cpus_per_task=4,
        gpus_per_node=8,
        partition="gpu",
        account="abc",
        signal_before=300,
        modules=("gcc/13", "mpi"),
        container=str(image),
    )
    text = batch_script(request, work(tmp_path), "pmix", "python")
    for line in (
        "#!/bin/bash -l",
        "#SBATCH --job-name=run",
        "#SBATCH --output=run-%j.out",
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=3",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --time=2-01:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=abc",
        "#SBATCH --signal=USR1@300",
        "#SBATCH --requeue",
        "module load gcc/13 || exit 1",
        "export PMIX_MCA_gds=hash",
        f"    apptainer exec --nv '{image}' pympi-train train",
        "    srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores --cpus-per-task=4 "
        "--gpu-bind=none \\",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    "image, plugin, count",
    [(None, "pmix", 0), ("a.sif", "pmi2", 0), ("a.sif", "pmix_v4", 1)],
)
def test_pmix_within_an_image(tmp_path, image, plugin, count):
    if image is not None:
        image = tmp_path / image
        image.touch()
    request = JobRequest(
        nodes=1, ntasks_per_node=1, time="01:00:00", container=image and str(image)
    )
    text = batch_script(request, work(tmp_path), plugin, "python")
    assert text.count("export PMIX_MCA_gds=hash\n") == count


@pytest.mark.parametrize(
    "time, signal_before, line",
    [("00:10:00", None, "USR1@120"), ("00:09:59", None, ""), ("00:01:00", 9, "USR1@9")],
)
def test_signal_before_the_limit(tmp_path, time, signal_before, line):
    request = JobRequest(
        nodes=1, ntasks_per_node=1, time=time, signal_before=signal_before
    )
    text = batch_script(request, work(tmp_path), "pmi2", "python")
    assert text.partition("#SBATCH --signal=")[2].partition("\n")[0] == line


@pytest.mark.parametrize(
    "result, status, state, ends, is_requeued",
    [
        ('{"epochs": 3}', 0, "RUNNING", 0, False),  # finished
        ("", 2, "RUNNING", 2, False),  # an error
        ("", 143, "RUNNING", 143, False),  # a rank died
        (SAVED, 75, "RUNNING", -15, True),
        (SAVED, 143, "RUNNING", -15, True),  # srun ended the slower ranks
        (SAVED, 75, "CANCELLED", 75, False),
        (SAVED, 75, "COMPLETING", 75, False),
    ],
)
def test_when_a_job_is_requeued(
    stubs, tmp_path, result, status, state, ends, is_requeued
):
    clear(stubs)
    for name, value in (("result", result), ("status", status), ("state", state)):
        (stubs / name).write_text(str(value))
    text = batch_script(REQUEST, work(tmp_path), "pmi2", "python")
    done, _, requeued = run(stubs, text)
    assert done.returncode == ends
    assert requeued == (["requeue 7"] if is_requeued else [])
    assert result in done.stdout.decode()


def test_no_progress_ends_a_job(stubs, tmp_path):
    clear(stubs)
    doing = work(tmp_path)
    text = batch_script(REQUEST, doing, "pmi2", "python")

    def start(restarts, saved, new_steps=5, job="7"):
        """Whether the job is requeued, and whether it says that it gives up."""
        (stubs / "saved").write_text(saved)
        result = SAVED.replace('"new_steps": 5', f'"new_steps": {new_steps}')
        (stubs / "result").write_text(result * (new_steps is not None))
        env = {"SLURM_JOB_ID": job, "CHECKPOINTS": doing.checkpoints}
        done, words, requeued = run(stubs, text, SLURM_RESTART_COUNT=restarts, **env)
        (stubs / "scontrol.words").unlink(missing_ok=True)
        return bool(requeued), b"makes no progress" in done.stderr

    assert start("0", "000001-step-5") == (True, False)
    assert start("1", "000002-step-9") == (True, False)
    # The newest was damaged: the training went on from the one before it.
    assert start("2", "000003-step-9") == (True, False)
    assert start("3", "000004-step-9", new_steps=10) == (True, False)
    assert start("4", "000005-step-9", new_steps=0) == (False, True)
    assert start("0", "000006-step-9", new_steps=0, job="8") == (True, False)
    # Requeued by SLURM itself, as after the loss of a node: the script has no end.
    none = {"new_steps": None, "job": "8"}
    start("1", "000007-step-9", **none)
    start("2", "000007-step-9", **none)
    (stubs / "srun.words").unlink()
    assert start("3", "000007-step-9", **none) == (False, True)
    assert not (stubs / "srun.words").exists()


def test_name_of_a_job():
    assert job_name("/x/a b\n$(c).toml") == "a_b_c"
    assert job_name("/x/$.toml") == "training"


@pytest.mark.parametrize(
    "vary, array, spec",
    [
        ((), None, None),
        ((), "0-4", "0-4"),
        ((("a.b", ["1", "2", "3"]),), None, "0-2"),
        ((("a.b", ["1", "2", "3"]),), "0,2%1", "0,2%1"),
    ],
)
def test_array_of_values(vary, array, spec):
    assert require_variations(vary, array) == spec


@pytest.mark.parametrize(
    "vary, array, words",
    [
        ((("a.b", ["1"]), ("a.c", ["1", "2"])), None, "got 1 for a.b, 2 for a.c"),
        ((("a.b", ["1", "2"]),), "0-2", "task 2 has no value: --vary has 2"),
    ],
)
def test_array_without_values(vary, array, words):
    with pytest.raises(ConfigError, match=words):
        require_variations(vary, array)
