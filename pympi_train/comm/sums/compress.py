"""Sums over ranks of blocks that are sent compressed, with error feedback."""

import numpy as np

from pympi_train.backends.numpy.wires import WIDTH
from pympi_train.comm.collectives import ring_bytes
from pympi_train.comm.sums.by_slices import flow, piece_for
from pympi_train.comm.sums.feedback import Feedback
from pympi_train.comm.sums.wires import KINDS, Wire
from pympi_train.comm.transports.host import HostTransport
from pympi_train.flat.parts import even_cuts
from pympi_train.flat.state import held

COMPRESSIONS = ("fp16", "bf16", "int8", "topk", "powersgd")


def compressed_sum(kind, comm, layout, ops, transport=None):
    """Return an object that sums blocks of ``layout`` over the ranks, compressed.

    Parameters
    ----------
    kind : str
        One of COMPRESSIONS, or "none".
    comm : MPI.Comm
    layout : Layout
        Size and dtype of the blocks, and the matrices in them, for PowerSGD.
    ops : module
        The backend.
    transport : HostTransport or another, optional
        The transport of the blocks; HostTransport by default.

    Returns
    -------
    PlainSum, WireSum, TopK or PowerSGD
        With ``sum(block)``, ``reset()``, ``sent_bytes``, and ``holdings(space)`` and
        ``loaded()`` for the state between steps. With one rank, nothing is sent or
        compressed.
    """
    if transport is None:
        transport = HostTransport(comm)
    if kind == "none":
        return PlainSum(comm, transport)
    if kind in KINDS:
        wire = Wire(kind, ops)
        return WireSum(comm, layout.size, layout.dtype, wire, transport=transport)
    if kind == "topk":
        from pympi_train.comm.sums.topk import TopK

        return TopK(comm, layout.size, layout.dtype)
    if kind == "powersgd":
        from pympi_train.comm.sums.powersgd import PowerSGD

        return PowerSGD(comm, layout)
    raise ValueError(f"no compression {kind!r}")


class PlainSum:
    """The uncompressed sum over ranks in place, with the interface of the other sums.

    Parameters
    ----------
    comm : MPI.Comm
    transport : HostTransport or another

    Attributes
    ----------
    sent_bytes : int
        Bytes that this rank would have sent so far in ideal rings.
    """

    def __init__(self, comm, transport):
        self._comm, self._transport, self.sent_bytes = comm, transport, 0

    def reset(self):
        """There is no state to reset."""

    loaded = reset

    def holdings(self, space):
        """Return an empty list: there is no state."""
        return []

    def sum(self, block):
        """Replace ``block`` by its sum over the ranks.

        Notes
        -----
        Collective.
        """
        self._transport.sum(block)
        self.sent_bytes += ring_bytes(block.nbytes, self._comm.size)


class WireSum(Feedback):
    """The sum over ranks with encoded messages, for the slices and for their sum.

    1. Every rank adds the loss of the last step's encoding to its block [1]_, encodes
       the block, and sends each slice to the rank that owns it.
    2. The owner decodes the slices and adds them in the block's precision, in rank
       order.
    3. The owner encodes the sum, also with error feedback [2]_, and broadcasts it.
    4. All ranks, including the owner, decode the sum. Replicas have the same bits.

    Parameters
    ----------
    comm : MPI.Comm
    size : int
        Elements of a block.
    dtype : dtype
        float32 or float64.
    wire : Wire
    transport : HostTransport or another, optional
        HostTransport by default.
    chunk : int, optional
        Number of elements encoded at once.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far.

    Notes
    -----
    For ``n`` elements and ``P`` ranks, a rank sends ``2 b(n) (P - 1) / P`` bytes per
    sum, where ``b`` is `Wire.bytes`. Each other rank receives two messages per 2^19
    elements, or per 2^12 P elements beyond 128 ranks. Messages are in flight while
    other chunks are encoded and decoded. A rank keeps ``n + n / P`` elements of
    feedback.

    References
    ----------
    .. [1] S. P. Karimireddy, Q. Rebjock, S. U. Stich and M. Jaggi, "Error Feedback
       Fixes SignSGD and other Gradient Compression Schemes", ICML 2019.
       arXiv:1901.09847.
    .. [2] H. Tang, C. Yu, X. Lian, T. Zhang and J. Liu, "DoubleSqueeze: Parallel
       Stochastic Gradient Descent with Double-pass Error-Compensated Compression",
       ICML 2019. arXiv:1905.05957.
    """

    def __init__(self, comm, size, dtype, wire, *, transport=None, chunk=None):
        self.sent_bytes = 0
        self._comm, self._wire, self._ops = comm, wire, wire.ops
        transport = transport or HostTransport(comm)
        self._chunks, n_own, chunk = [], 0, chunk or piece_for(comm.size)
        for start in range(0, size if comm.size > 1 else 0, chunk):
            stop = min(start + chunk, size)
            chunk_ = _Chunk(comm, wire, start, stop, n_own, transport)
            self._chunks.append(chunk_)
            n_own = chunk_.own_residual.stop
        self._residual = wire.ops.zeros(size, dtype)
        self._own_residual = wire.ops.zeros(n_own if self._chunks else size, dtype)
        self._free = []  # pairs of buffers: one to send from, one to receive in
        most = max((c.own_size for c in self._chunks), default=0)
        self._total = wire.ops.empty(most, dtype)

    def reset(self):
        """Set the losses of earlier sums to zero."""
        self._ops.fill(self._residual, 0.0)
        self._ops.fill(self._own_residual, 0.0)

    def holdings(self, space):
        """Return the state: the losses of each rank's blocks, and of the sums."""
        slices = [chunk.own_slice for chunk in self._chunks] or None
        sums = held(
            "residual_of_sum",
            space,
            self._own_residual,
            self._ops,
            slices=slices,
            default=0.0,
        )
        return [*super().holdings(space), sums]

    def sum(self, block):
        """Replace ``block``, shape (size,), by its sum over the ranks.

        All ranks get the same bits. An element that is not finite on any rank is not
        finite in the sum on all ranks.

        Notes
        -----
        Collective.
        """

        if not self._chunks:
            self._pay(block, self._residual, self._own_residual)
            return

        def start(chunk):
            return self._start(chunk, block[chunk.whole])

        flow(self._chunks, start, self._combine, self._finish)

    def _make_buffers(self):
        most = max(chunk.n_bytes for chunk in self._chunks)
        comes = self._comm.size * max(chunk.n_own_bytes for chunk in self._chunks)
        empty = self._ops.empty
        return empty(most, np.dtype(np.uint8)), empty(comes, np.dtype(np.uint8))

    def _start(self, chunk, part):
        """Send the slices of a chunk; return the argument of `_combine`. Collective."""
        buffers = self._free.pop() if self._free else self._make_buffers()
        data, left = buffers[0][: chunk.n_bytes], self._residual[chunk.whole]
        self._wire.encode(part, data, left)
        came = buffers[1][: self._comm.size * chunk.n_own_bytes]
        came = came.reshape(self._comm.size, -1)
        request = chunk.slices.start_scatter(data, came)
        return request, chunk, part, data, came, buffers

    def _combine(self, state):
        """Add up this rank's slice; send the sum to the other ranks. Collective."""
        request, chunk, part, data, came, buffers = state
        request.Wait()
        own, total = data[chunk.own_bytes], self._total[: chunk.own_size]
        if total.size:
            self._wire.decode_sum(came, total)
            self._wire.encode(total, own, self._own_residual[chunk.own_residual])
        self.sent_bytes += chunk.n_bytes - own.size + own.size * (self._comm.size - 1)
        return chunk.slices.start_gather(data), chunk, part, data, buffers

    def _finish(self, state):
        request, chunk, part, data, buffers = state
        request.Wait()
        self._wire.decode(data, part)
        self._free.append(buffers)


class _Chunk:
    """A stretch of the block, and this rank's slice of it in elements and bytes.

    Slices are whole blocks of the wire, so their messages are those of the stretch.
    """

    def __init__(self, comm, wire, start, stop, n_own, transport):
        self.whole, self.n_bytes = slice(start, stop), wire.bytes(stop - start)
        cuts = even_cuts(0, stop - start, comm.size, step=WIDTH)
        ends = wire.bytes(np.array(cuts))
        own_start, own_stop = cuts[comm.rank : comm.rank + 2]
        self.own_bytes = slice(*ends[comm.rank : comm.rank + 2].tolist())
        self.n_own_bytes = self.own_bytes.stop - self.own_bytes.start
        self.own_size = own_stop - own_start
        self.own_residual = slice(n_own, n_own + self.own_size)
        self.own_slice = (start + own_start, start + own_stop, n_own)
        self.slices = transport.slices(np.diff(ends))
