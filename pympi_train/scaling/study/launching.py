"""The launcher of a study and the environment of its ranks."""

import os

from pympi_train.errors import ConfigError
from pympi_train.launch.launchers import find_launcher, launcher_family
from pympi_train.programs import run_program

ANSWER_S = 60.0
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def choose_launcher(given, environ):
    """Return the Launcher, and its family as `cores.binding` takes it.

    Parameters
    ----------
    given : str
        "auto", "mpirun", "srun", or a command with its options, whose ranks are bound
        by these options alone.
    environ : mapping of str to str

    Raises
    ------
    LaunchError
        If there is none.
    ConfigError
        If srun is asked for outside of a SLURM job.
    """
    if given not in ("auto", "mpirun", "srun"):
        return find_launcher(given, environ), None
    if given == "srun" and "SLURM_JOB_ID" not in environ:
        raise ConfigError(
            "--launcher srun: this is no SLURM job; start it by sbatch or salloc, or "
            "use --launcher slurm, which submits one"
        )
    if given == "mpirun":
        environ = {k: v for k, v in environ.items() if not k.startswith("SLURM_")}
    launcher = find_launcher(None, environ)
    name = os.path.basename(launcher.words[0])
    if given == "srun" and name != "srun":
        raise ConfigError(
            f"--launcher srun: it cannot start ranks of {launcher.about}: use "
            "--launcher mpirun"
        )
    if name == "srun":
        return launcher, "srun"
    told = run_program([launcher.words[0], "--version"], ANSWER_S)
    return launcher, launcher_family(told.stdout + told.stderr)


def with_environment(argv, cores_per_rank):
    """Return a command that runs another one with as many threads as a rank has cores.
    """
    given = [f"{name}={cores_per_rank}" for name in THREADS]
    return ["env", *given, *argv]
