"""Programs of SLURM, and the plugin of `srun` for the MPI library."""

import re
import shlex
import sys

from pympi_train.errors import ConfigError, LaunchError
from pympi_train.mpi_libraries import (
    fitting_plugin,
    identify_library,
    is_unloadable,
    library_title,
    listed_plugins,
    trial_words,
)
from pympi_train.programs import run_program

TIMEOUT_S = 120.0  # a busy controller answers late
ELSEWHERE = "call this on a login node of the cluster"
BY_HAND = "name srun's plugin by --mpi PLUGIN"


def run_tool(*argv, check=True):
    """Return the CompletedProcess of a program of SLURM, its output as text.

    Raises
    ------
    LaunchError
        If it is not installed, does not end, or (with ``check``) fails.
    """
    done = run_program(argv, TIMEOUT_S, ELSEWHERE)
    if check and done.returncode != 0:
        raise LaunchError(f"{argv[0]} failed: {what_it_said(done)}")
    return done


def what_it_said(done):
    """Return the messages of a program of SLURM as one line."""
    text = f"{done.stderr}\n{done.stdout}"
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in text.split("\n")]
    return "; ".join(line for line in lines if line) or f"status {done.returncode}"


def find_plugin(python):
    """Return the plugin for ``srun --mpi`` that fits the MPI library.

    Parameters
    ----------
    python : list of str
        Command of the Python that will train; in a container, all of its words.

    Raises
    ------
    LaunchError
        If `srun` is not there, no library is loaded, or none of its plugins is there or
        can be loaded.
    """
    done = run_program(["srun", "--mpi=list"], TIMEOUT_S, f"{ELSEWHERE}, or {BY_HAND}")
    if done.returncode != 0:
        raise LaunchError(
            f"srun failed: {what_it_said(done)}; {ELSEWHERE}, or {BY_HAND}"
        )
    listed = done.stdout + done.stderr
    version = _library_version([*python, "-m", "mpi4py", "--mpi-lib-version"])
    library = identify_library(version)
    if library is None:
        title = library_title(version) or "nothing"
        raise LaunchError(f"unknown MPI library {title!r}: {BY_HAND}")
    plugin = fitting_plugin(library, listed)
    if plugin is None:
        raise LaunchError(
            f"{library.name} needs `srun --mpi={library.plugins[0]}`, and this SLURM "
            f"has only: {', '.join(listed_plugins(listed))}. Load another MPI library "
            "(`python -m mpi4py --mpi-lib-version` tells which one it is), or "
            f"{BY_HAND}"
        )
    _require_loadable(plugin)
    return plugin


def _library_version(argv):
    """Return the version string of the MPI library that a command prints."""
    done = run_program(argv, TIMEOUT_S, f"load its module, or {BY_HAND}")
    if done.returncode != 0:
        raise LaunchError(
            f"`{shlex.join(argv)}` failed: {what_it_said(done)}. If another Python "
            f"will train, {BY_HAND}"
        )
    return done.stdout


def _require_loadable(plugin):
    """Raise LaunchError if `srun` lists a plugin that it cannot load."""
    tried = run_tool("srun", *trial_words(plugin), check=False)
    if is_unloadable(tried.stderr):
        raise LaunchError(
            f"`srun --mpi={plugin}` does not start here, although `srun --mpi=list` "
            f"names it: {what_it_said(tried)}. Tell the administrators; if it works "
            f"on the compute nodes, name it: --mpi {plugin}"
        )


def python_command(container, container_tool):
    """Return the words that start Python as the job will.

    Without a container it is this Python; in one, that of the image.
    """
    if container is None:
        return [sys.executable]
    return [container_tool, "exec", container, "python3"]


def require_plugin(name):
    """Return the name of a plugin that the user gives; raise ConfigError if none."""
    if not re.fullmatch(r"[a-z][a-z0-9_.]{0,40}", name):
        raise ConfigError(f"--mpi {name!r}: expected a name of `srun --mpi=list`")
    return name
