"""A layer at a time: exchanges of one layer, and tensors in memory for one layer."""

from collections.abc import Sequence

from pympi_train.comm.transports.host import HostTransport
from pympi_train.flat.parts import Part


class LayerExchange:
    """Sums of a layer's slices to their owners, and slices from there to all.

    Parameters
    ----------
    comm : MPI.Comm
    transport : HostTransport or another
        How blocks travel.
    partition : Partition
    count : callable
        Told the bytes that an ideal algorithm sends from this rank for each call.

    Attributes
    ----------
    is_needed : bool
        Whether there are other ranks.
    """

    def __init__(self, comm, transport, partition, count):
        self._comm, self._transport = comm, transport
        self._partition, self._count = partition, count
        self.is_needed = comm.size > 1

    def in_host_memory(self):
        """Return the same exchanges, of blocks in host memory."""
        transport = HostTransport(self._comm)
        return LayerExchange(self._comm, transport, self._partition, self._count)

    def reduce(self, layer, block, out):
        """Write the sum over the ranks of the own slice of ``block`` to ``out``.

        Parameters
        ----------
        layer : int
        block : ndarray, shape (elements of the layer,)
        out : ndarray, shape (elements of the own slice,)

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        counts = self._partition.counts[layer]
        self._transport.reduce_scatter(block, counts, out)
        self._count(block.nbytes - out.nbytes)

    def gather(self, layer, block):
        """Fill all of ``block``, one layer, but the own slice from the other ranks.

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        counts = self._partition.counts[layer]
        self._transport.all_gather(block, counts)
        own = counts[self._comm.rank] * block.itemsize
        self._count((self._comm.size - 1) * own)


def one_layer(layout, partition, ops):
    """Return memory for the largest layer, where the backend's arrays lie."""
    return ops.empty_block(Part(layout, [(0, partition.largest)]))


class OneLayer(Sequence):
    """Tensors of a layout in memory for its largest layer: one layer's at a time.

    Taking a tensor, or a slice of them, of another layer than before makes all views
    that were taken so far invalid.

    Parameters
    ----------
    layout : Layout
    partition : Partition
    scratch : ndarray
        The memory, shape (partition.largest,) or more.

    Attributes
    ----------
    scratch : ndarray
    layer : int or None
        Whose tensors they are now.
    """

    takes = None  # a Takes that is told of each

    def __init__(self, layout, partition, scratch):
        self._partition, self.layer = partition, None
        self.scratch, views = scratch, []
        self._blocks = [scratch[:size] for size in partition.sizes]
        for span, (start, _) in zip(partition.spans, partition.layers):
            own = zip(layout.tensors[span], layout.offsets[span])
            views.append(
                [
                    scratch[at - start : at - start + tensor.size].reshape(tensor.shape)
                    for tensor, at in own
                ]
            )
        self._views = views

    def __len__(self):
        return sum(map(len, self._views))

    def __getitem__(self, index):
        layer, chosen = self._partition.find(index)
        if layer is not None and layer != self.layer:
            self._change(layer)
        if self.takes is not None:
            self.takes.note()
        if isinstance(index, slice):
            return [self._views[layer][i] for i in chosen]
        return self._views[layer][chosen]

    def _change(self, layer):
        """Make the memory that of ``layer``."""
        raise NotImplementedError

    def own_slice(self, layer):
        """Return this rank's slice of the layer, in the memory."""
        piece, (start, _) = self._partition.pieces[layer], self._partition.layers[layer]
        return self._blocks[layer][piece.start - start : piece.stop - start]
