"""Choice of the transport of blocks in GPU memory."""

import sys
from threading import Timer

from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.watch.guard import note_wait
from pympi_train.errors import ConfigError

TELL_AFTER_S = 1.0  # a failed rank prints its reason if the others take longer


def choose_transport(comm, name):
    """Return the transport of blocks on GPUs, the same on all ranks.

    Parameters
    ----------
    comm : MPI.Comm
    name : {"auto", "nccl", "mpi", "staged"}
        auto: NCCL if it is installed and every rank has a GPU of its own, else MPI if
        it reports that it is CUDA-aware, else copies in pinned host memory. The
        attribute ``passed_over`` of the result contains the reasons against the
        transports that were rejected.

    Raises
    ------
    ConfigError
        On every rank, if ``name`` is a transport that some rank cannot use; the
        message contains the reason.

    Notes
    -----
    Collective.
    Before a transport is chosen, all its operations are tested on small blocks: some
    MPI libraries accept GPU memory in some calls only. If a test raises on some ranks
    only, the other ranks wait until the watchdog ends the job.
    """
    from pympi_train.comm.transports.staged import Staged

    if comm.size == 1 or name == "staged":
        return Staged(comm)
    makers = {"nccl": _nccl, "mpi": _direct}
    reasons = []
    for kind in (name,) if name != "auto" else tuple(makers):
        found, reason = makers[kind](comm)
        if found is not None:
            reason = _tried(comm, found)
            if reason is None:
                found.passed_over = "; ".join(reasons)
                return found
            _attempt(found.abandon)
        reasons.append(f"{kind}: {reason}")
    if name != "auto":
        raise agreed_within(comm, ConfigError(f"transport {'; '.join(reasons)}"))
    found = Staged(comm)
    found.passed_over = "; ".join(reasons)
    return found


def _nccl(comm):
    """Return (transport or None, reason against it). Collective."""
    from pympi_train.backends.cuda import nccl as cuda_nccl
    from pympi_train.comm.devices import ranks_by_gpu
    from pympi_train.comm.transports.nccl import NcclTransport

    reason = _first(comm.allgather(cuda_nccl.unavailable()))
    if reason:
        return None, reason
    if len(ranks_by_gpu(comm)) < comm.size:
        return None, "NCCL needs a GPU for each rank, and some share one"
    uid, reason = comm.bcast(_attempt(cuda_nccl.unique_id) if comm.rank == 0 else None)
    if reason:
        return None, f"rank 0: {reason}"
    found, reason = _attempt(lambda: NcclTransport(comm, uid))
    reason = _agreed_reason(comm, "nccl", reason)
    if reason and found is not None:
        _attempt(found.abandon)
    return (None, reason) if reason else (found, None)


def _direct(comm):
    """Return (transport or None, reason against it). Collective."""
    from pympi_train.comm.transports import cuda_aware
    from pympi_train.comm.transports.direct import Direct

    with together(comm):
        mine = cuda_aware.supported()
    known = comm.allgather(mine)
    if all(known):
        return Direct(comm), None
    says = "says that it does not" if False in known else "does not say whether it does"
    return None, (
        f"MPI has to read a GPU's memory, and this one {says}; if it does, set "
        f"{cuda_aware.OVERRIDE}=1 on all ranks"
    )


def _first(reasons):
    """Return the first reason that is not None, with its rank, or None."""
    for rank, reason in enumerate(reasons):
        if reason:
            return f"rank {rank}: {reason}"
    return None


def _agreed_reason(comm, name, reason):
    """Return the first reason that a rank has, or None. Collective.

    The other ranks may wait in NCCL for the failed rank until a watchdog ends the job.
    The failed rank therefore prints its reason after TELL_AFTER_S.
    """
    late = Timer(TELL_AFTER_S, _tell, (comm, name, reason))
    late.daemon = True
    if reason:
        late.start()
    try:
        return _first(comm.allgather(reason))
    finally:
        late.cancel()


def _tell(comm, name, reason):
    who = f"rank {comm.rank} of {comm.size}"
    sys.stderr.write(f"{who} waits for the others, as its {name} failed: {reason}\n")
    sys.stderr.flush()


def _attempt(make):
    """Return (result of ``make()``, None), or (None, its exception as text)."""
    try:
        return make(), None
    except Exception as error:  # NcclError, MPI's, CUDA's
        return None, f"{type(error).__name__}: {error}"


def _tried(comm, transport):
    """Return the reason why ``transport`` does not work, or None. Collective."""
    found = []

    def attempt():
        found.append(_adds_up(comm, transport))

    # NCCL connects the ranks in its first calls, which block the host.
    _, error = _attempt(lambda: note_wait(comm, attempt))
    right = found == [True]
    reason = error or (None if right else "a sum came out wrong")
    return _agreed_reason(comm, transport.name, reason)


def _adds_up(comm, transport):
    """Return whether all operations give the expected values. Collective."""
    import numpy as np

    from pympi_train.backends.cuda import ops

    def put(host):
        there = ops.empty(host.shape, host.dtype)
        ops.from_host(host, there)
        return there

    each, size = 250, comm.size
    places = (np.arange(each * size) % 251).astype(np.float32)  # exact sums
    total = size * places + size * (size - 1) / 2
    own = slice(comm.rank * each, (comm.rank + 1) * each)

    block = put(places + comm.rank)
    transport.sum(block)
    found = [(ops.to_host(block), total)]

    mine = put(np.zeros(each, np.float32))
    transport.reduce_scatter(put(places + comm.rank), [each] * size, mine)
    found.append((ops.to_host(mine), total[own]))
    ops.fill(block, 0.0)
    ops.copy(mine, block[own])
    transport.all_gather(block, [each] * size)
    found.append((ops.to_host(block), total))

    slices = transport.slices([each] * size)
    bytes_ = (np.arange(each * size) % 251).astype(np.uint8)
    parts = put(np.zeros((size, each), np.uint8))
    there = put(bytes_)
    slices.start_scatter(there, parts).Wait()
    slices.start_gather(there).Wait()
    found += [(ops.to_host(parts), bytes_[own]), (ops.to_host(there), bytes_)]
    return all((here == wanted).all() for here, wanted in found)
