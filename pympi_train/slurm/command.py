"""The text of a batch script whose one command starts ranks by itself."""

from pympi_train.slurm.quote import quoted
from pympi_train.slurm.script import REQUEUE, directives, preparation

EXCLUSIVE = """\
# Other jobs on a node would disturb what is measured.
#SBATCH --exclusive
"""
GPUS = """\
# Each rank sees all GPUs of its node, and takes that of its number.
export SLURM_GPU_BIND=none
"""


def command_script(request, name, folder, words, about):
    """Return the text of a batch script that runs a command on whole nodes.

    Parameters
    ----------
    request : JobRequest
        Without an array and without a container. No signal is sent before the time
        limit.
    name : str
        Of the job; a result of `job_name`.
    folder : str
        Working directory.
    words : list of str
        The command. Called again after a requeue, it must go on where it was.
    about : str
        The second line of the script: a comment.
    """
    parts = [directives(request, name, about) + EXCLUSIVE + REQUEUE]
    parts.append(preparation(request, folder))
    if request.gpus_per_node is not None:
        parts.append(GPUS)
    parts.append(f"exec {' '.join(map(quoted, words))}\n")
    return "\n".join(parts)
