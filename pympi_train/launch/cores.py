"""The cores of ranks, the same number at every number of ranks; without MPI."""

import os
import re

from pympi_train.backends.threads import affinity
from pympi_train.errors import ConfigError
from pympi_train.mpi_libraries import MPICH, OPEN_MPI

THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def cores_of(ranks, given, environ):
    """Return the cores for each rank, the same at every number of ranks.

    Parameters
    ----------
    ranks : list of int
    given : int or None
        What the user asks for.
    environ : mapping of str to str

    Notes
    -----
    Within SLURM those of ``--cpus-per-task``. Else the cores of this node, divided by
    the largest number of ranks for which they suffice.
    """
    if given is not None:
        return given
    if "SLURM_JOB_ID" in environ:
        text = environ.get("SLURM_CPUS_PER_TASK", "1")
        if not text.isdigit() or int(text) < 1:
            raise ConfigError(f"SLURM_CPUS_PER_TASK={text!r} is no number of cores")
        return int(text)
    n = len(affinity())
    return n // max([k for k in ranks if k <= n] or [n])


def binding(family, n_ranks, cores_per_rank, environ=os.environ):
    """Return the launcher's words that give each rank cores of its own.

    Parameters
    ----------
    family : str or None
        MPICH, OPEN_MPI, "srun", or None if unknown: nothing is bound.
    n_ranks, cores_per_rank : int
    environ : mapping of str to str

    Notes
    -----
    `srun` would spread few ranks over all nodes of the job. As `mpirun` does, it fills
    one node after another here, so that the ranks on a node do not change their number
    between a few ranks and many.
    """
    if family == "srun":
        words = ["--cpu-bind=cores", f"--cpus-per-task={cores_per_rank}"]
        if per_node := tasks_per_node(environ):
            words.append(f"--nodes={-(-n_ranks // per_node)}")
        return words
    if n_ranks * cores_per_rank > len(affinity()):
        return ["--map-by", ":OVERSUBSCRIBE"] * (family == OPEN_MPI)
    if family == MPICH:
        return ["-bind-to", f"core:{cores_per_rank}"]
    if family == OPEN_MPI:
        return ["--map-by", f"slot:PE={cores_per_rank}", "--bind-to", "core"]
    return []


def tasks_per_node(environ):
    """Return the number of ranks on each node of a SLURM job; None if they differ.

    >>> tasks_per_node({"SLURM_TASKS_PER_NODE": "4(x2)"})
    4
    """
    found = re.fullmatch(
        r"([1-9]\d*)(\(x\d+\))?", environ.get("SLURM_TASKS_PER_NODE", "")
    )
    return int(found[1]) if found else None


def require_tasks(ranks, environ):
    """Raise ConfigError if a SLURM job has fewer tasks than the most of ``ranks``."""
    text = environ.get("SLURM_NTASKS", "")
    if text.isdigit() and max(ranks) > int(text):
        raise ConfigError(
            f"--ranks {max(ranks)}: this job has {text} tasks; ask sbatch for more "
            "--nodes or --ntasks-per-node"
        )


def with_threads(program, cores_per_rank):
    """Return the words that start a program with as many threads as a rank has cores.

    By ``env``, because launchers differ in the variables that they pass on.
    """
    given = [f"{name}={cores_per_rank}" for name in THREADS]
    return ["env", *given, *program]
