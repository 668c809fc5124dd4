"""Sums over ranks of blocks that travel compressed, with error feedback."""

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
    """Return what sums blocks of ``layout`` over the ranks, compressed.

    Parameters
    ----------
    kind : str
        Of COMPRESSIONS, or "none".
    comm : MPI.Comm
    layout : Layout
        Of the blocks: size, dtype, and for PowerSGD the matrices in them.
    ops : module
        The backend.
    transport : HostTransport or another, optional
        How blocks travel; in host memory, unless it is given.

    Returns
    -------
    PlainSum, WireSum, TopK or PowerSGD
        With ``sum(block)``, ``reset()``, ``sent_bytes`` and, for what survives a
        step, ``holdings(space)`` and ``loaded()``. On one rank nothing travels, and
        nothing is compressed.
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
    """The sum over ranks in place, uncompressed, as the other sums are called.

    Parameters
    ----------
    comm : MPI.Comm
    transport : HostTransport or another

    Attributes
    ----------
    sent_bytes : int
        What an ideal ring has sent so far.
    """

    def __init__(self, comm, transport):
        self._comm, self._transport, self.sent_bytes = comm, transport, 0

    def reset(self):
        """There is nothing to forget."""

    loaded = reset

    def holdings(self, space):
        """Nothing survives."""
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
    """The sum over ranks in two rounds of fewer bits: of the slices, of their sum.

    Every rank encodes its block, with what the last step's encoding lost added to it
    [1]_; each slice goes to its owner, who decodes and adds up in the block's own
    precision, in rank order. The owner encodes the sum, again with feedback of what
    was lost [2]_, and all ranks, the owner too, take what the code says: replicas
    have the same bits.

    Parameters
    ----------
    comm : MPI.Comm
    size : int
        Elements of a block.
    dtype : dtype
        float32 or float64.
    wire : Wire
    transport : HostTransport or another, optional
        In host memory, unless it is given.
    chunk : int, optional
        Elements encoded at once.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far.

    Notes
    -----
    A sum sends ``2 b(n) (P - 1) / P`` bytes a rank for ``n`` elements and ``P`` ranks,
    where ``b`` is `Wire.bytes`, in two messages to each other rank for each 2^19
    elements, or 2^12 P beyond 128 ranks; some are on their way while others are encoded
    and decoded. A rank holds
    ``n + n / P`` elements of feedback.

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
        self._free = []  # pairs of buffers: for what is sent, for what comes
        most = max((c.own_size for c in self._chunks), default=0)
        self._total = wire.ops.empty(most, dtype)

    def reset(self):
        """Forget what earlier sums lost."""
        self._ops.fill(self._residual, 0.0)
        self._ops.fill(self._own_residual, 0.0)

    def holdings(self, space):
        """Return what survives: what each rank has lost, and what the sums have."""
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

        The same bits on every rank. What is not finite on any rank is not finite in
        the sum on all.

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
        comes = self._comm.size * max(chunk.own_bytes for chunk in self._chunks)
        empty = self._ops.empty
        return empty(most, np.dtype(np.uint8)), empty(comes, np.dtype(np.uint8))

    def _start(self, chunk, part):
        """Send the slices of a chunk; returns what `_combine` takes. Collective."""
        buffers = self._free.pop() if self._free else self._make_buffers()
        data, left = buffers[0][: chunk.n_bytes], self._residual[chunk.whole]
        for place, of_bytes in zip(chunk.places, chunk.bytes):
            self._wire.encode(part[place], data[of_bytes], left[place])
        came = buffers[1][: self._comm.size * chunk.own_bytes]
        came = came.reshape(self._comm.size, -1)
        request = chunk.slices.start_scatter(data, came)
        return request, chunk, part, data, came, buffers

    def _combine(self, state):
        """Add up the own slice, and send it to the others. Collective."""
        request, chunk, part, data, came, buffers = state
        request.Wait()
        own = data[chunk.bytes[self._comm.rank]]
        total = self._total[: chunk.own_size]
        if total.size:
            self._wire.decode(came[0], total)
            for other in came[1:]:
                self._wire.decode_add(other, total)
            self._wire.encode(total, own, self._own_residual[chunk.own_residual])
        self.sent_bytes += chunk.n_bytes - own.size + own.size * (self._comm.size - 1)
        return chunk.slices.start_gather(data), chunk, part, data, buffers

    def _finish(self, state):
        request, chunk, part, data, buffers = state
        request.Wait()
        for place, of_bytes in zip(chunk.places, chunk.bytes):
            self._wire.decode(data[of_bytes], part[place])
        self._free.append(buffers)


class _Chunk:
    """A stretch of the block: where its slices lie, in elements and in bytes."""

    def __init__(self, comm, wire, start, stop, n_own, transport):
        self.whole = slice(start, stop)
        cuts = even_cuts(0, stop - start, comm.size, step=WIDTH)
        self.places = [slice(*pair) for pair in zip(cuts, cuts[1:])]
        sizes = [wire.bytes(place.stop - place.start) for place in self.places]
        ends = np.cumsum([0, *sizes]).tolist()
        self.bytes = [slice(*pair) for pair in zip(ends, ends[1:])]
        self.n_bytes, self.own_bytes = ends[-1], sizes[comm.rank]
        own = self.places[comm.rank]
        self.own_size = own.stop - own.start
        self.own_residual = slice(n_own, n_own + self.own_size)
        self.own_slice = (start + own.start, start + own.stop, n_own)
        self.slices = transport.slices(sizes)
