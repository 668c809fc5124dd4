"""Choice of the backend of all ranks and of each rank's GPU."""

import importlib
import os
import warnings

from pympi_train.backends import gpu
from pympi_train.backends.select import Backend, select
from pympi_train.comm import launcher
from pympi_train.comm.checks import agreed_within, together
from pympi_train.errors import ConfigError


def choose_backend(comm, name, unfit=None):
    """Return the backend called ``name``, the same on all ranks; bind the GPUs.

    Parameters
    ----------
    comm : MPI.Comm
    name : {"auto", "cuda", "numba", "numpy"}
        auto: the GPU if a test kernel ran on every rank's GPU, else Numba if it is
        installed, else NumPy.
    unfit : str, optional
        Reason why this training cannot run on a GPU; the same on all ranks.

    Raises
    ------
    ConfigError
        On every rank, if there is no such backend. Also, with "cuda", if some rank
        has no usable GPU or ``unfit`` is given; the message contains the reason.

    Notes
    -----
    Collective.
    Rank 0 warns if ranks share a GPU.
    """
    if name == "cuda":
        problem = unfit or _missing(comm)
        if problem:
            raise agreed_within(comm, ConfigError(f"backend is 'cuda', but {problem}"))
        return _cuda(comm)
    if name != "auto":
        with together(comm):
            return select(name)
    installed = comm.allgather(gpu.is_installed())
    problem = None
    if any(installed):  # else no message about GPUs is needed
        problem = unfit or _missing(comm)
        if not problem:
            return _cuda(comm)
    with together(comm):
        found = select("auto")
    if problem:
        kind = "not on a GPU" if unfit else "no GPU"
        reason = f"{found.reason}; {kind}: {problem}"
        found = Backend(found.name, found.ops, reason)
    return found


def _missing(comm):
    """Return the reason why some rank has no usable GPU, or None. Collective."""
    reasons = comm.allgather(gpu.unavailable(local_rank(comm)))
    wrong = [rank for rank, reason in enumerate(reasons) if reason]
    if not wrong:
        return None
    others = f" ({len(wrong)} of {comm.size} ranks have none)" if comm.size > 1 else ""
    where = f"rank {wrong[0]}: " if comm.size > 1 else ""
    return f"{where}{reasons[wrong[0]]}{others}"


def _cuda(comm):
    cuda = importlib.import_module("pympi_train.backends.cuda.device")
    ops = importlib.import_module("pympi_train.backends.cuda.ops")
    own = cuda.device()
    sharing = ranks_by_gpu(comm)
    most = max(map(len, sharing))
    if most > 1 and comm.rank == 0:
        ranks = next(ranks for ranks in sharing if len(ranks) > 1)
        warnings.warn(
            f"{len(sharing)} GPUs for {comm.size} ranks: ranks "
            f"{', '.join(map(str, ranks[:8]))} share one, and wait for each other "
            f"there; start as many ranks a node as it has GPUs",
            RuntimeWarning,
            stacklevel=3,
        )
    each = f", {most} ranks on one" if most > 1 else ""
    reason = f"{own.name}, compute capability {own.capability}{each}; a kernel ran"
    return Backend("cuda", ops, reason)


def ranks_by_gpu(comm):
    """Return the ranks of each GPU, a list of lists.

    GPUs are identified by UUID, since each rank may see other device numbers.

    Notes
    -----
    Collective.
    """
    from pympi_train.backends.cuda import device as cuda

    sharing: dict = {}
    for rank, uuid in enumerate(comm.allgather(cuda.device().uuid)):
        sharing.setdefault(uuid, []).append(rank)
    return list(sharing.values())


def local_rank(comm):
    """Return this process's number among the ranks of its node. Collective.

    This is the launcher's number, which counts all launched ranks, so that ranks of
    two communicators do not use the same GPU. If the launcher's number is missing or
    not unique among the ranks of ``comm`` on this node, it is the rank among these.
    """
    from mpi4py import MPI

    told = launcher.told_local_rank(os.environ, MPI.COMM_WORLD.size)
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    numbers, own = node.allgather(told), node.rank
    node.Free()
    if None in numbers or len(set(numbers)) < len(numbers):
        return own
    return told
