"""MPI libraries by their version strings, and the plugin of `srun` for each."""

import re
from typing import NamedTuple

MPICH, OPEN_MPI = "MPICH", "Open MPI"


class MpiLibrary(NamedTuple):
    """What is known of an MPI library.

    Attributes
    ----------
    name : str
        For messages.
    family : str
        MPICH or OPEN_MPI: whose launchers start its ranks.
    plugins : tuple of str
        Values of ``srun --mpi`` by which its ranks find each other, the best first.
    """

    name: str
    family: str
    plugins: tuple


# By a part of the version string; those of Cray and MVAPICH contain "MPICH" too.
LIBRARIES = {
    "CRAY": MpiLibrary("Cray MPICH", MPICH, ("cray_shasta", "pmi2")),
    "MVAPICH": MpiLibrary("MVAPICH", MPICH, ("pmi2",)),
    "Intel": MpiLibrary("Intel MPI", MPICH, ("pmi2",)),
    "MPICH": MpiLibrary("MPICH", MPICH, ("pmi2",)),
    "Open MPI": MpiLibrary("Open MPI", OPEN_MPI, ("pmix",)),
    "Spectrum MPI": MpiLibrary("IBM Spectrum MPI", OPEN_MPI, ("pmix",)),
}


def identify_library(version):
    """Return the MpiLibrary of a version string; None if it is not known.

    Parameters
    ----------
    version : str
        From ``MPI.Get_library_version()``.

    Examples
    --------
    >>> identify_library("Intel(R) MPI Library 2021.13 for Linux* OS").name
    'Intel MPI'
    """
    title = library_title(version)
    return next((found for part, found in LIBRARIES.items() if part in title), None)


def library_title(version):
    """Return the name and the number in a version string, on one line.

    What follows them can name any compiler and machine.

    Examples
    --------
    >>> library_title("Open MPI v5.0.11, package: Open MPI root@intel-1\\n")
    'Open MPI v5.0.11'
    >>> library_title("MPICH Version:      5.0.2\\nMPICH CC: gcc")
    'MPICH 5.0.2'
    """
    first = (version.rstrip("\0").splitlines() or [""])[0].partition(",")[0]
    return " ".join(first.replace(" Version:", " ").split())


def fitting_plugin(library, listed):
    """Return the plugin of `srun` for a library; None if `srun` has none.

    Parameters
    ----------
    library : MpiLibrary
    listed : str
        What ``srun --mpi=list`` printed.
    """
    offered = listed_plugins(listed)
    return next((name for name in library.plugins if name in offered), None)


def listed_plugins(text):
    """Return the plugins in the output of ``srun --mpi=list``.

    Examples
    --------
    >>> listed_plugins("MPI plugin types are...\\n\\tpmix\\n\\tnone\\n\\tpmi2\\n")
    ['pmix', 'none', 'pmi2']
    """
    found = []
    for line in text.splitlines():
        line = line.removeprefix("srun: ")
        for mark in ("...", "available:"):
            if mark in line:
                line = line.partition(mark)[2].replace(" ", ",")
        names = [name.strip() for name in line.split(",") if name.strip()]
        if all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names):
            found += names
    if any(name.startswith("pmix_") for name in found) and "pmix" not in found:
        found.append("pmix")
    return found


def trial_words(plugin):
    """Return the arguments of `srun` that try a plugin, and start nothing.

    The list of plugins names files. That of PMIx of Debian and Ubuntu, for example,
    also needs the package libpmix-dev; without it, no job can start.
    """
    return f"--mpi={plugin}", "--test-only", "--ntasks=1", "true"


def is_unloadable(answer):
    """Return whether the answer to `trial_words` is that the plugin cannot be loaded.

    Other errors, such as an account that is not given, say nothing of the plugin.
    """
    return "Invalid MPI type" in answer
