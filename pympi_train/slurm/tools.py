"""Programs of SLURM, and the answers of `srun` and of the MPI library."""

import re
import subprocess
import sys

from pympi_train.comm.launcher import MPICH_FAMILY
from pympi_train.errors import ConfigError, LaunchError

TIMEOUT_S = 120.0  # a busy controller answers late

# Plugins of `srun` by which the ranks of a library can find each other, the best first.
PLUGINS = {
    "Open MPI": ("pmix",),
    "CRAY": ("cray_shasta", "pmi2"),
    "MPICH": ("pmi2",),
}


def run_tool(*argv, check=True):
    """Return the CompletedProcess of a program, its output as text.

    Raises
    ------
    LaunchError
        If it is not installed, does not end, or (with ``check``) fails.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise LaunchError(
            f"{argv[0]} is not on PATH: call this on a login node of the cluster"
        ) from error
    except OSError as error:
        raise LaunchError(f"{argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{argv[0]} gave no answer in {TIMEOUT_S:.0f} s") from error
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
        If `srun` is not there, no library is loaded, or none of its plugins is there.
    """
    done = run_tool("srun", "--mpi=list")
    offered = plugins_of(done.stdout + done.stderr)
    library = run_tool(*python, "-m", "mpi4py", "--mpi-lib-version").stdout
    name, wanted = wanted_plugins(library)
    for plugin in wanted:
        if plugin in offered:
            return plugin
    raise LaunchError(
        f"{name} needs `srun --mpi={wanted[0]}`, and this SLURM has only: "
        f"{', '.join(offered)}. Load another MPI library (`python -m mpi4py "
        "--mpi-lib-version` tells which one it is), or name the plugin by --mpi"
    )


def plugins_of(text):
    """Return the plugins in the output of ``srun --mpi=list``.

    Examples
    --------
    >>> plugins_of("MPI plugin types are...\\n\\tpmix\\n\\tnone\\n\\tpmi2\\n")
    ['pmix', 'none', 'pmi2']
    """
    lines = [line.removeprefix("srun: ").strip() for line in text.splitlines()]
    found = [line for line in lines if re.fullmatch(r"[a-z][a-z0-9_]*", line)]
    for line in lines:
        if "versions available:" in line:
            found += line.partition("available:")[2].replace(",", " ").split()
    if any(name.startswith("pmix") for name in found) and "pmix" not in found:
        found.append("pmix")
    return found


def wanted_plugins(library):
    """Return (name of an MPI library, plugins that serve it).

    Parameters
    ----------
    library : str
        From ``MPI.Get_library_version()``.

    Raises
    ------
    LaunchError
        If the library is not known.
    """
    if "CRAY" in library.upper():
        return "Cray MPICH", PLUGINS["CRAY"]
    if "Open MPI" in library:
        return "Open MPI", PLUGINS["Open MPI"]
    for name in MPICH_FAMILY:
        if name in library:
            return name, PLUGINS["MPICH"]
    first = (library.splitlines() or ["nothing"])[0]
    raise LaunchError(f"unknown MPI library {first!r}: name srun's plugin by --mpi")


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
