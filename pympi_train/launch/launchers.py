"""The program that starts ranks: the one that belongs to the loaded MPI library."""

import os
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

from pympi_train.comm.launcher import MPICH_FAMILY, NO_LIBRARY
from pympi_train.errors import LaunchError

MPICH, OPEN_MPI = "MPICH", "Open MPI"
# Intel's mpirun is a shell script, which signals do not pass: its hydra comes first.
NAMES = ("mpiexec.hydra", "mpirun", "mpiexec", "mpirun.mpich", "mpirun.openmpi")
# Parts of what `mpirun --version` prints.
SIGNS = {
    OPEN_MPI: ("Open MPI", "OpenRTE", "PRRTE"),
    MPICH: ("HYDRA", "Intel(R) MPI", "MPICH", "MVAPICH"),
}
# What `srun --mpi=list` may offer, the best first.
PMI = {MPICH: ("cray_shasta", "pmi2"), OPEN_MPI: ("pmix",)}
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
    family = family_of(version)
    if "SLURM_JOB_ID" in environ and (words := _srun(version, environ)):
        return Launcher(words, version)
    passed_over = []
    for program in candidates(path, environ):
        if launcher_family(_answer([program, "--version"])) == family:
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
    argv = [sys.executable, "-c", LIBRARY]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired as error:
        reason = f"loading it took more than {ANSWER_S:.0f} s"
        raise LaunchError(NO_LIBRARY.format(reason=reason)) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise LaunchError(NO_LIBRARY.format(reason=reason))
    version, path = done.stdout.split("\n")[:2]
    return " ".join(version.replace(" Version:", "").split()).split(",")[0], path


def family_of(version):
    """Return MPICH or OPEN_MPI for the version string of a library."""
    return MPICH if any(name in version for name in MPICH_FAMILY) else OPEN_MPI


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


def _srun(version, environ):
    """Return the words of srun for a library; None if it cannot start such ranks."""
    program = shutil.which("srun", path=environ.get("PATH"))
    if program is None:
        return None
    flag = pmi_flag(version, _answer([program, "--mpi=list"]))
    if flag is None:
        return None
    words = (program, f"--mpi={flag}", "--kill-on-bad-exit=1")
    # Inside a step, such as that of an interactive shell, which holds all CPUs.
    return (*words, "--overlap") if "SLURM_STEP_ID" in environ else words


def pmi_flag(version, listed):
    """Return the value of ``srun --mpi`` for a library, or None.

    Parameters
    ----------
    version : str
        Of the library.
    listed : str
        What ``srun --mpi=list`` printed.
    """
    offered = listed.replace(",", " ").split()
    for name in PMI[family_of(version)]:
        if name in offered and (name != "cray_shasta" or "CRAY" in version):
            return name
    return None


def _answer(argv):
    """Return what a program prints of itself; "" if it cannot be run."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
