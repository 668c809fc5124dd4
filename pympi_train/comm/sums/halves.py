"""Sums over ranks of blocks in float16 or bfloat16."""

from pympi_train.comm.sums.by_slices import flow, piece_for
from pympi_train.flat.parts import even_cuts


class HalfSum:
    """The sum over ranks of float16 or bfloat16, added in float32 and rounded once.

    The owner of a slice receives it from all ranks, adds in rank order, and broadcasts
    the sum. All ranks get the same bits with every transport. MPI has no such type,
    and NCCL would round after each rank.

    Parameters
    ----------
    comm : MPI.Comm
    transport : NcclTransport or another
    ops : module
        The backend; its ``row_sum`` adds the slices.
    size : int
        Number of elements of a block.
    chunk : int, optional
        Number of elements summed at once.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far.

    Notes
    -----
    A rank sends ``4 n (P - 1) / P`` bytes, half as many as with float32, in two
    messages per chunk to each other rank.
    """

    def __init__(self, comm, transport, ops, size, chunk=None):
        self._comm, self._ops, self.sent_bytes = comm, ops, 0
        self._chunks, self._free, chunk = [], [], chunk or piece_for(comm.size)
        for start in range(0, size if comm.size > 1 else 0, chunk):
            stop = min(start + chunk, size)
            cuts = even_cuts(0, stop - start, comm.size)
            sizes = [2 * (b - a) for a, b in zip(cuts, cuts[1:])]
            own = slice(cuts[comm.rank], cuts[comm.rank + 1])
            self._chunks.append((slice(start, stop), own, transport.slices(sizes)))

    def sum(self, block):
        """Replace ``block``, shape (size,), by its sum over the ranks.

        Notes
        -----
        Collective.
        """

        def start(chunk):
            whole, own, slices = chunk
            return self._start(block[whole], own, slices)

        flow(self._chunks, start, self._combine, lambda request: request.Wait())

    def _start(self, part, own, slices):
        shape = self._comm.size, own.stop - own.start
        size = shape[0] * shape[1]
        came = next((a for a in self._free if a.size >= size), None)
        if came is None:
            came = self._ops.empty(size, part.dtype)
        else:
            self._free.remove(came)
        parts = came[:size].reshape(shape)
        request = slices.start_scatter(part.view("u1"), parts.view("u1"))
        return request, part, own, slices, parts, came

    def _combine(self, state):
        request, part, own, slices, parts, came = state
        request.Wait()
        self._ops.row_sum(parts, part[own])
        self._free.append(came)  # later operations on it are queued after the sum
        self.sent_bytes += 2 * (part.size - parts.shape[1])
        self.sent_bytes += 2 * parts.shape[1] * (self._comm.size - 1)
        return slices.start_gather(part.view("u1"))
