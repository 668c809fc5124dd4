"""The launcher of a study and the environment of its ranks."""

import os

from pympi_train.errors import ConfigError
from pympi_train.launch.launchers import find_launcher, launcher_family
from pympi_train.programs import run_program

ANSWER_S = 60.0
OWN = "pympi-train: "
BANNER = "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
EXIT = "TERMINATED WITH THE EXIT STRING:"
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


def last_words(text):
    """Return what explains the failure of a launch, from what it has printed.

    The last line of this package; else the last line before the banner in which MPICH
    reports a rank that died, and the signal that it names.
    """
    said, _, banner = text.partition(BANNER)
    lines = [line for line in said.splitlines() if line.strip(" \t-=")]
    own = [line for line in lines if line.startswith(OWN)]
    if own:
        return own[-1].removeprefix(OWN)
    ends = [
        line.partition(EXIT)[2].strip()
        for line in banner.splitlines()
        if EXIT in line
    ]
    return "; ".join([*lines[-1:], *ends[:1]])
