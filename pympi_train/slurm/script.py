"""The text of a batch script."""

import os
import re
from typing import NamedTuple

from pympi_train.errors import ConfigError
from pympi_train.slurm.quote import quoted
from pympi_train.slurm.request import array_indices

ASKED = (
    "nodes",
    "ntasks_per_node",
    "cpus_per_task",
    "gpus_per_node",
    "time",
    "partition",
    "account",
    "array",
)
DIRECTIVES = """\
#SBATCH --job-name={name}
#SBATCH --output={name}-{number}.out
#SBATCH --open-mode=append
"""

# Sent to the steps, not to this script ("B:"): the ranks save, and srun ends.
SIGNAL = """\
# So many seconds before the time limit the ranks are told to save and to end.
#SBATCH --signal=USR1@{seconds}
"""

REQUEUE = """\
# After a pre-emption, or the loss of a node, SLURM starts the job again.
#SBATCH --requeue
"""

# Open MPI 4 looks for them: https://github.com/apptainer/singularity/issues/5195
PMIX_IN_IMAGE = """\
# Within the image, the ranks do not see the files by which SLURM's PMIx serves them.
export PMIX_MCA_gds=hash
"""

END_TIME = """\
# The ranks save before the job ends; SLURM before 23.02 does not tell them when.
if [ -z "${SLURM_JOB_END_TIME:-}" ]; then
    ends=$(squeue -h -j "$job" -o %e)
    SLURM_JOB_END_TIME=$(date -d "$ends" +%s 2>/dev/null) && export SLURM_JOB_END_TIME
fi
"""

PROGRESS = """\
newest() { # name of the newest checkpoint; nothing without one
    ls -- "$checkpoints" 2>/dev/null | grep -xE '[0-9]{6,}-step-[0-9]+' |
        sort -n | tail -n 1
}

give_up() {
    echo "pympi-train: job $job makes no progress: $1 since its last requeue, and it" \
        "is not requeued again. The cause is above." >&2
    exit 1
}

# Has the last start, if it was a requeue too, written a checkpoint?
restarts=${SLURM_RESTART_COUNT:-0}
began=$(newest)
mkdir -p -- "$checkpoints" || exit 1
last_start=$checkpoints/slurm-last-start
if [ "$restarts" -gt 1 ] &&
    [ "$(cat -- "$last_start" 2>/dev/null)" = "$job $began" ]; then
    give_up "it has written no checkpoint"
fi
echo "$job $began" >"$last_start"
"""

RUN = """\
result=$(
    srun {options} \\
        "${{train[@]}}"
)
status=$?
printf '%s\\n' "$result"

# Saved before its end? The result says so. The exit status (75) need not: as soon as
# the first rank has left, srun ends the slower ones.
case $result in
*'"interrupted": '*) ;;
*) exit "$status" ;;
esac
# Counted from the checkpoint that it went on from: the newest one may be damaged.
case $result in
*'"new_steps": 0,'*) [ "$restarts" -eq 0 ] || give_up "it has done no step" ;;
esac
# A job that was cancelled stays so, and SLURM itself requeues one that is pre-empted.
if [ "$(squeue -h -j "$job" -o %T)" = RUNNING ]; then
    saved=$(newest)
    echo "pympi-train: job $job is requeued at step ${{saved##*-}}" >&2
    scontrol requeue "$job" || exit 75
    sleep 60 # until SLURM ends this script: its own end could be taken for the job's
fi
exit 75
"""


class Work(NamedTuple):
    """What a job does.

    Attributes
    ----------
    name : str
        Of the job.
    folder : str
        Working directory.
    config : str
        Path of the configuration file.
    overrides : tuple of str
        Words after ``--set``.
    vary : tuple of (str, list of str)
        Keys of the configuration with a value for each task of an array.
    directory, checkpoints : str
        Run directory and folder of the checkpoints; of an array, their parents.
    """

    name: str
    folder: str
    config: str
    overrides: tuple
    vary: tuple
    directory: str
    checkpoints: str


def batch_script(request, work, plugin, python, container_tool="apptainer"):
    """Return the text of a batch script.

    Parameters
    ----------
    request : JobRequest
    work : Work
    plugin : str
        For ``srun --mpi``.
    python : str
        Path of the Python with this package; not used in a container.
    container_tool : str
        Program that runs a command in an image.
    """
    parts = [_opening(request, work), preparation(request, work.folder)]
    if request.container is not None and plugin.startswith("pmix"):
        parts.append(PMIX_IN_IMAGE)
    parts += [_job_variables(request, work), END_TIME, PROGRESS]
    parts.append(_command(request, work, python, container_tool))
    parts.append(RUN.format(options=_srun_options(request, plugin)))
    return "\n".join(part for part in parts if part)


def _opening(request, work):
    about = "To start the training, and to resume it: sbatch THIS_FILE"
    text = directives(request, work.name, about)
    if request.signal_before is not None:
        text += SIGNAL.format(seconds=request.signal_before)
    return text + REQUEUE


def directives(request, name, about):
    """Return the first lines of a script: what the job asks for.

    Parameters
    ----------
    request : JobRequest
    name : str
        Of the job and of its output; a result of `job_name`.
    about : str
        A line without line breaks.
    """
    login = " -l" if request.modules else ""  # defines `module`
    number = "%j" if request.array is None else "%A_%a"
    text = f"#!/bin/bash{login}\n# {about}\n"
    text += DIRECTIVES.format(name=name, number=number)
    for option in ASKED:
        value = getattr(request, option)
        if value is not None:
            text += f"#SBATCH --{option.replace('_', '-')}={value}\n"
    return text


def preparation(request, folder):
    """Return the lines that load the modules and change to the working directory."""
    lines = [f"module load {quoted(name)} || exit 1" for name in request.modules]
    return "\n".join([*lines, f"cd -- {quoted(folder)} || exit 1"]) + "\n"


def _job_variables(request, work):
    if request.array is None:
        return f"job=$SLURM_JOB_ID\ncheckpoints={quoted(work.checkpoints)}\n"
    lines = [
        "# Each task of the array has its own run directory.",
        "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        f"run={quoted(work.directory)}/task-$SLURM_ARRAY_TASK_ID",
        "checkpoints=$run/checkpoints",
    ]
    for i, (key, values) in enumerate(work.vary):
        lines += [f"# {key} of each task:", f"values_{i}=("]
        lines += [f"    {quoted(value)}" for value in values] + [")"]
    return "\n".join(lines) + "\n"


def _command(request, work, python, container_tool):
    """Return the lines that define the array `train`: the command of a rank."""
    first = f"{quoted(python)} -m pympi_train"
    if request.container is not None:
        gpus = " --nv" if request.gpus_per_node else ""
        image = quoted(request.container)
        first = f"{quoted(container_tool)} exec{gpus} {image} pympi-train"
    lines = [f"{first} train", quoted(work.config), "--resume --json"]
    lines += [f"--set {quoted(word)}" for word in work.overrides]
    if request.array is not None:
        lines.append('--set "output.directory=$run"')
        for i, (key, _) in enumerate(work.vary):
            value = f"${{values_{i}[$SLURM_ARRAY_TASK_ID]}}"
            lines.append(f'--set {key}="{value}"')
    return "\n".join(["train=(", *(f"    {line}" for line in lines), ")"]) + "\n"


def _srun_options(request, plugin):
    options = [f"--mpi={plugin}", "--kill-on-bad-exit=1", "--cpu-bind=cores"]
    if request.cpus_per_task is not None:  # since 22.05 not taken from the job
        options.append(f"--cpus-per-task={request.cpus_per_task}")
    if request.gpus_per_node is not None:
        # Each rank sees all GPUs of its node, and takes that of its number.
        options.append("--gpu-bind=none")
    return " ".join(options)


def job_name(config):
    """Return a job name from the name of a configuration file.

    Examples
    --------
    >>> job_name("/data/my run$(x).toml")
    'my_run_x'
    """
    stem = os.path.splitext(os.path.basename(config))[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("_.-")[:60] or "training"


def require_variations(vary, array):
    """Return the SPEC of the array for the values that vary.

    Parameters
    ----------
    vary : sequence of (str, list of str)
    array : str or None
        As given; by default one task for each value.

    Raises
    ------
    ConfigError
        If the numbers of values differ, or a task has no value.
    """
    counts = {len(values) for _, values in vary}
    if len(counts) > 1:
        raise ConfigError(
            "--vary: expected as many values for each key, got "
            + ", ".join(f"{len(values)} for {key}" for key, values in vary)
        )
    if not counts:
        return array
    (n,) = counts
    if array is None:
        return f"0-{n - 1}"
    beyond = sorted(i for i in array_indices(array) if i >= n)
    if beyond:
        raise ConfigError(
            f"--array {array}: task {beyond[0]} has no value: --vary has {n}, counted "
            "from 0"
        )
    return array
