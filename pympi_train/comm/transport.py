"""How blocks travel between ranks, by where they lie: host memory, or a GPU's."""

from pympi_train.comm import collectives
from pympi_train.comm.checks import agreed, together
from pympi_train.comm.slices import Slices
from pympi_train.errors import ConfigError

TRANSPORTS = ("nccl", "mpi", "staged")  # of a GPU's memory, the fastest first


class HostTransport:
    """Blocks in host memory: MPI's own calls.

    What all transports have: ``sum``, ``reduce_scatter``, ``all_gather`` and
    ``slices``, collective each, with the same results up to rounding.

    Parameters
    ----------
    comm : MPI.Comm

    Attributes
    ----------
    name : str
    """

    name = "host"

    def __init__(self, comm):
        self._comm = comm

    def sum(self, block):
        """Replace ``block`` by its sum over the ranks. Collective."""
        collectives.sum_in_place(self._comm, block)

    def reduce_scatter(self, block, counts, out):
        """Give every rank the sum of its slice of ``block``. Collective."""
        collectives.reduce_scatter(self._comm, block, counts, out)

    def all_gather(self, block, counts):
        """Fill all slices of ``block`` but the own one. Collective."""
        collectives.all_gather(self._comm, block, counts)

    def slices(self, sizes):
        """Return exchanges of blocks of bytes that are cut into these sizes."""
        return Slices(self._comm, sizes)

    def free(self):
        """There is nothing to free."""


def choose_transport(comm, name, on_device):
    """Return the transport that all ranks take.

    Parameters
    ----------
    comm : MPI.Comm
    name : {"auto", "nccl", "mpi", "staged"}
        auto: NCCL where it is installed and every rank has a GPU of its own, else MPI
        where it says that it reads a GPU's memory, else copies in pinned host memory.
    on_device : bool
        Whether blocks lie on a GPU; the same on all ranks.

    Raises
    ------
    ConfigError
        On every rank: if one is asked for that some rank cannot use, with the reason.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    A transport is tried on a small block before it is taken: some MPI libraries read a
    GPU's memory in some calls alone.
    """
    if not on_device:
        if name != "auto":
            raise agreed(
                ConfigError(f"transport {name} is for backend cuda: blocks lie in RAM")
            )
        return HostTransport(comm)
    from pympi_train.comm.staged import Staged

    if comm.size == 1 or name == "staged":
        return Staged(comm)
    makers = {"nccl": _nccl, "mpi": _direct}
    reasons = []
    for kind in (name,) if name != "auto" else tuple(makers):
        found, reason = makers[kind](comm, asked=name != "auto")
        if found is not None:
            reason = _tried(comm, found)
            if reason is None:
                return found
            found.free()
        reasons.append(f"{kind}: {reason}")
    if name != "auto":
        raise agreed(ConfigError(f"transport {'; '.join(reasons)}"))
    return Staged(comm)


def _nccl(comm, asked):
    """Return (transport or None, why not). Collective."""
    from pympi_train.backends import cuda_nccl
    from pympi_train.comm.devices import ranks_by_gpu
    from pympi_train.comm.nccl import NcclTransport

    reason = _first(comm.allgather(cuda_nccl.unavailable()))
    if reason:
        return None, reason
    if len(ranks_by_gpu(comm)) < comm.size:
        return None, "NCCL needs a GPU for each rank, and some share one"
    uid = comm.bcast(cuda_nccl.unique_id() if comm.rank == 0 else None, root=0)
    found = error = None
    try:
        found = NcclTransport(comm, uid)
    except Exception as caught:  # NcclError; any rank's is everyone's
        error = f"{type(caught).__name__}: {caught}"
    reason = _first(comm.allgather(error))
    if reason and found is not None:
        found.free()
    return (None, reason) if reason else (found, None)


def _direct(comm, asked):
    """Return (transport or None, why not). Collective."""
    from pympi_train.comm import cuda_aware
    from pympi_train.comm.direct import Direct

    known = comm.allgather(cuda_aware.supported())
    if all(known):
        return Direct(comm), None
    says = "says that it does not" if False in known else "does not say whether it does"
    return None, (
        f"MPI has to read a GPU's memory, and this one {says}; if it does, set "
        f"{cuda_aware.OVERRIDE}=1 on all ranks"
    )


def _first(reasons):
    """Return the first reason there is, with its rank, or None."""
    for rank, reason in enumerate(reasons):
        if reason:
            return f"rank {rank}: {reason}"
    return None


def _tried(comm, transport):
    """Return why ``transport`` does not work, or None. Collective."""
    import numpy as np

    from pympi_train.backends import cuda_ops as ops

    host = np.arange(1000, dtype=np.float32) + comm.rank
    want = comm.size * np.arange(1000) + comm.size * (comm.size - 1) / 2
    with together(comm):
        block = ops.empty(host.shape, host.dtype)
        ops.from_host(host, block)
    transport.sum(block)
    right = bool((ops.to_host(block) == want).all())
    wrong = [rank for rank, ok in enumerate(comm.allgather(right)) if not ok]
    return f"a sum came out wrong on rank {wrong[0]}" if wrong else None
