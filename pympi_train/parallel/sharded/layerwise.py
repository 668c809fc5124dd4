"""Exchanges of one layer, and tensors in a workspace for one layer."""

from collections.abc import Sequence

from pympi_train.comm.transports.host import HostTransport
from pympi_train.flat.parts import Part


class LayerExchange:
    """Reduce-scatter and all-gather of one layer, between the owners of its slices.

    Parameters
    ----------
    comm : MPI.Comm
    transport : HostTransport or another
        The transport of the blocks.
    partition : Partition
    count : callable
        Called with the bytes that an ideal algorithm sends from this rank in each call.

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
        """Return the same exchange for blocks in host memory."""
        transport = HostTransport(self._comm)
        return LayerExchange(self._comm, transport, self._partition, self._count)

    def reduce(self, layer, block, out):
        """Write this rank's slice of ``block``, summed over the ranks, to ``out``.

        Parameters
        ----------
        layer : int
        block : ndarray, shape (elements of the layer,)
        out : ndarray, shape (elements of this rank's slice,)

        Notes
        -----
        Collective.
        """
        counts = self._partition.counts[layer]
        self._transport.reduce_scatter(block, counts, out)
        self._count(block.nbytes - out.nbytes)

    def gather(self, layer, block):
        """Fill ``block``, one layer, with the slices of the other ranks.

        Notes
        -----
        Collective.
        """
        counts = self._partition.counts[layer]
        self._transport.all_gather(block, counts)
        own = counts[self._comm.rank] * block.itemsize
        self._count((self._comm.size - 1) * own)


def one_layer(layout, partition, ops):
    """Return a workspace for the largest layer, in the backend's memory."""
    return ops.empty_block(Part(layout, [(0, partition.largest)]))


class OneLayer(Sequence):
    """The tensors of a layout, one layer at a time, in a workspace for one layer.

    Taking tensors of another layer than before invalidates all views that were taken so
    far.

    Parameters
    ----------
    layout : Layout
    partition : Partition
    scratch : ndarray
        The workspace, shape (partition.largest,) or larger.

    Attributes
    ----------
    scratch : ndarray
    layer : int or None
        The layer that is in the workspace now.
    """

    takes = None  # a Takes that counts them

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
        """Load ``layer`` into the workspace."""
        raise NotImplementedError

    def own_slice(self, layer):
        """Return this rank's slice of the layer in the workspace."""
        piece, (start, _) = self._partition.pieces[layer], self._partition.layers[layer]
        return self._blocks[layer][piece.start - start : piece.stop - start]
