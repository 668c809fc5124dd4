"""A check that the replicas of all ranks have the same bits."""

from collections import Counter
from hashlib import blake2b

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.errors import DriftError


def digest(block):
    """Return a 64-bit hash of a contiguous array's bytes, at about 1 GB/s.

    SHA-1 is twice as fast on processors with SHA instructions, and half as fast on
    others.
    """
    block = np.ascontiguousarray(block).view(np.uint8)
    return int.from_bytes(blake2b(block, digest_size=8).digest(), "little")


def require_same(comm, layout, block, when):
    """Raise on every rank unless ``block`` is the same on all ranks.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
        Names the tensors in ``block``.
    block : ndarray, shape (layout.size,)
    when : str
        Time for the message, such as "after step 1000".

    Raises
    ------
    DriftError
        On every rank. The message names the ranks that differ from the majority, and
        the first tensor that differs.

    Notes
    -----
    Collective.
    One MAX of 16 bytes over [h, ~h], with the hash h. The two results are complements
    if and only if h is the same on all ranks. More is sent only if it differs.
    """
    if comm.size == 1:
        return
    from mpi4py import MPI

    mine = digest(block)
    extremes = np.array([mine, ~mine & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    comm.Allreduce(MPI.IN_PLACE, extremes, op=MPI.MAX)
    if extremes[0] != ~extremes[1]:
        raise agreed_within(comm, _error(comm, layout, block, mine, when))


def _error(comm, layout, block, mine, when):
    """Return the DriftError that describes the difference. Collective."""
    digests = [digest(view) for view in layout.views(block)]
    ranks = comm.allgather((mine, digests))
    odd, usual = odd_ones([whole for whole, _ in ranks])
    theirs, most = ranks[odd[0]][1], ranks[usual][1]
    differ = [i for i, (a, b) in enumerate(zip(theirs, most)) if a != b]
    if differ:
        what = f"tensor {layout.tensors[differ[0]].name}"
        what += f" ({len(differ)} of {len(digests)} differ)"
    else:
        what = "padding between the tensors"
    names = ", ".join(map(str, odd[:8])) + (", ..." if len(odd) > 8 else "")
    who = f"rank {names} has" if len(odd) == 1 else f"ranks {names} have"
    return DriftError(
        f"{when} the ranks' parameters are no longer equal: {who} other ones than rank "
        f"{usual} and {comm.size - len(odd)} of {comm.size} in all; the first "
        f"difference is in {what}. Bad memory, a processor or library that is not the "
        f"others', or a callback that changed parameters on some ranks can be the cause"
    )


def odd_ones(values):
    """Return (indices of values other than the most frequent, index of one that is).

    If several values are equally frequent, the first of them counts.

    Examples
    --------
    >>> odd_ones([5, 5, 7, 5])
    ([2], 0)
    >>> odd_ones([1, 2])
    ([1], 0)
    """
    usual = Counter(values).most_common(1)[0][0]  # ties: the first seen
    return [i for i, v in enumerate(values) if v != usual], values.index(usual)
