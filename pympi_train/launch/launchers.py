"""The program that starts ranks: the one that belongs to the loaded MPI library."""

import os
import shlex
import shutil
import sys
from typing import NamedTuple

from pympi_train.comm.launcher import NO_LIBRARY
from pympi_train.errors import LaunchError
from pympi_train.mpi_libraries import (
    MPICH,
    OPEN_MPI,
    fitting_plugin,
    identify_library,
    is_unloadable,
    library_title,
    trial_words,
)
from pympi_train.programs import run_program

# Intel's mpirun is a shell script, which signals do not pass: its hydra comes first.
NAMES = ("mpiexec.hydra", "mpirun", "mpiexec", "mpirun.mpich", "mpirun.openmpi")
# Parts of what `mpirun --version` prints.
SIGNS = {
    OPEN_MPI: ("Open MPI", "OpenRTE", "PRRTE"),
    MPICH: ("HYDRA", "Intel(R) MPI", "MPICH", "MVAPICH"),
}
ANSWER_S = 60.0  # maximum wait for what a program says of itself

# Run in a process of its own, so that this one loads no MPI library.
LIBRARY = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version().splitlines()[0])
try:
    with open("/proc/self/maps") as maps:
        files = [line.split(maxsplit=5)[-1].strip() for line in maps]
except OSError:
    files = []
print(next((f for f in files if "/libmpi" in f), ""))
"""


class Launcher(NamedTuple):
    """How ranks are started.

    Attributes
    ----------
    words : tuple of str
        Before ``-n N`` and the program.
    about : str
        The library, for messages.
    """

    words: tuple
    about: str

    def command(self, n_ranks, program):
        """Return the words that start ``program`` on ``n_ranks`` ranks."""
        return [*self.words, "-n", str(n_ranks), *program]

    def __str__(self):
        return f"{shlex.join(self.words)} ({self.about})"


def find_launcher(given, environ):
    """Return the Launcher of the MPI library that mpi4py loads.

    Parameters
    ----------
    given : str or None
        The user's: a command with options, as in a shell.
    environ : mapping of str to str
        The environment: inside a SLURM job, srun takes precedence over mpirun.

    Raises
    ------
    LaunchError
        If there is no MPI library, no launcher, or ``given`` is none.
    """
    if given is not None:
        return _given(given)
    version, path = loaded_library()
    library = identify_library(version)
    if library is None:
        raise LaunchError(
            f"unknown MPI library {version!r}: name its launcher, as in "
            "--launcher /path/to/mpirun"
        )
    if "SLURM_JOB_ID" in environ and (words := _srun(library, environ)):
        return Launcher(words, version)
    passed_over = []
    for program in candidates(path, environ):
        if launcher_family(_answer(program, "--version")) == library.family:
            return Launcher((program,), version)
        passed_over.append(program)
    found = f" ({', '.join(passed_over)} belongs to another)" if passed_over else ""
    raise LaunchError(
        f"no launcher of the loaded MPI library was found: {version}, "
        f"{path or 'path unknown'}{found}. Put its mpirun on PATH, or name it: "
        "--launcher /path/to/mpirun"
    )


def _given(text):
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise LaunchError(f"--launcher {text!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise LaunchError(
            f"--launcher {text!r}: expected a program and its options, as in "
            "'mpirun --host a:4,b:4'; no such program was found"
        )
    return Launcher(tuple(words), "as given")


def loaded_library():
    """Return (version, path) of the MPI library that mpi4py loads; path may be "".

    Raises
    ------
    LaunchError
        If there is none.
    """
    try:
        done = run_program([sys.executable, "-c", LIBRARY], ANSWER_S)
    except LaunchError as error:
        raise LaunchError(NO_LIBRARY.format(reason=error)) from error
    if done.returncode:
        status = f"Python ended with status {done.returncode}"
        reason = (done.stderr.strip().splitlines() or [status])[-1]
        raise LaunchError(NO_LIBRARY.format(reason=reason))
    version, path = done.stdout.split("\n")[:2]
    return library_title(version), path


def launcher_family(text):
    """Return MPICH or OPEN_MPI for what a launcher says of itself; None: neither."""
    for family, signs in SIGNS.items():
        if any(sign in text for sign in signs):
            return family
    return None


def candidates(path, environ):
    """Return launchers that exist: beside the library, beside Python, on PATH.

    Parameters
    ----------
    path : str
        Of the library; may be "".
    environ : mapping of str to str
    """
    folders = [os.path.join(sys.prefix, "bin")]
    for file in {path: 0, os.path.realpath(path): 0} if path else ():
        above = os.path.dirname(file)
        for _ in range(2):  # lib/libmpi.so; lib/release/libmpi.so
            above = os.path.dirname(above)
            folders.append(os.path.join(above, "bin"))
    folders = folders[1:] + folders[:1]
    found = {}
    for where in (*folders, environ.get("PATH", "")):
        for name in NAMES:
            program = shutil.which(name, path=where)
            if program:
                found[program] = None
    return list(found)


def _srun(library, environ):
    """Return the words of srun for a library; None if it cannot start such ranks."""
    program = shutil.which("srun", path=environ.get("PATH"))
    if program is None:
        return None
    plugin = fitting_plugin(library, _answer(program, "--mpi=list"))
    if plugin is None or is_unloadable(_answer(program, *trial_words(plugin))):
        return None
    words = (program, f"--mpi={plugin}", "--kill-on-bad-exit=1")
    # Inside a step, such as that of an interactive shell, which holds all CPUs.
    return (*words, "--overlap") if "SLURM_STEP_ID" in environ else words


def _answer(*argv):
    """Return what a program prints of itself; "" if it cannot be run."""
    try:
        done = run_program(argv, ANSWER_S)
    except LaunchError:
        return ""
    return done.stdout + done.stderr
