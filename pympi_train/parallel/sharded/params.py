"""Parameters of which each rank updates a shard: whole everywhere, or nowhere."""

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.flat.memory import empty_block
from pympi_train.parallel.base import init_block
from pympi_train.parallel.sharded.layerwise import OneLayer, one_layer


class WholeParams:
    """All parameters on every rank.

    Parameters
    ----------
    layout : Layout
    partition : Partition
    exchange : LayerExchange
    laps : Laps
    ops : module
        The backend.

    Attributes
    ----------
    own : ndarray
        What this rank holds of the parameters.
    space : Layout or Part
        What that is of all of them.
    pieces : list of ndarray
        This rank's slice of each layer.
    """

    exchanges = False  # ranks exchange when a layer is taken

    def __init__(self, layout, partition, exchange, laps, ops):
        self._partition, self._exchange, self._ops = partition, exchange, ops
        self._layout, self.space, self.own = layout, layout, ops.empty_block(layout)
        self.views = layout.views(self.own)
        self.pieces = [self.own[piece] for piece in partition.pieces]

    def init(self, model, seed):
        """Write the model's starting point."""
        init_block(model, seed, self._layout, self.own, self._ops)

    def spread(self):
        """Let all ranks have the slices that each has updated. Collective."""
        for layer, (start, stop) in enumerate(self._partition.layers):
            self._exchange.gather(layer, self.own[start:stop])

    def restored(self):
        """``own`` was written on every rank: nothing is left to do."""

    def whole(self):
        """Return all parameters, in host memory."""
        return self._ops.to_host(self.own)


class SpreadParams:
    """Of the parameters, a rank holds its shard, and the layer that is computed with.

    As `WholeParams`.
    """

    def __init__(self, layout, partition, exchange, laps, ops):
        self._layout, self._partition, self._ops = layout, partition, ops
        self._host_exchange = exchange.in_host_memory()
        self.space, self.own = partition.part, ops.empty_block(partition.part)
        self.pieces = [self.own[place] for place in partition.places]
        scratch = one_layer(layout, partition, ops)
        self._views = _Gathered(
            layout, partition, exchange, self.pieces, laps, scratch, ops
        )
        self.exchanges = partition.is_layered

    @property
    def views(self):
        """Tensors that are gathered when they are taken. Collective.

        For a model without layers they are gathered here: it may take them in any
        order, or not at all, on one rank.
        """
        return self._views if self._partition.is_layered else self._views[:]

    def init(self, model, seed):
        """Write the model's starting point, and keep this rank's slices of it."""
        # Models write with NumPy: into the memory for a layer, or one of the host's.
        scratch = self._views.scratch
        if self._ops.ON_DEVICE:
            scratch = one_layer(self._layout, self._partition, numpy_ops)
        filled = _Filled(
            self._layout,
            self._partition,
            self._host_exchange,
            self.pieces,
            scratch,
            self._ops,
        )
        model.init(filled if self._partition.is_layered else filled[:], seed)
        filled.close()
        self._views.layer = None

    def spread(self):
        """The slices were updated: what was gathered before is of no use."""
        self._views.layer = None

    restored = spread

    def whole(self):
        """Return all parameters in a block of their own, in host memory. Collective."""
        block = empty_block(self._layout)
        for layer, (start, stop) in enumerate(self._partition.layers):
            own = self._ops.to_host(self.pieces[layer])
            block[self._partition.pieces[layer]] = own
            self._host_exchange.gather(layer, block[start:stop])
        return block


class _Gathered(OneLayer):
    """Parameters that are gathered layer by layer as they are taken. Collective."""

    def __init__(self, layout, partition, exchange, pieces, laps, scratch, ops):
        super().__init__(layout, partition, scratch)
        self._exchange, self._pieces, self._laps = exchange, pieces, laps
        self._ops = ops

    def _change(self, layer):
        self._laps.lap("compute")
        self._ops.copy(self._pieces[layer], self.own_slice(layer))
        self._exchange.gather(layer, self._blocks[layer])
        self.layer = layer
        self._laps.lap("communication")


class _Filled(OneLayer):
    """Parameters that are written layer by layer; each rank keeps its slices.

    A layer that is taken again is gathered, which is collective.
    """

    def __init__(self, layout, partition, exchange, pieces, scratch, ops):
        super().__init__(layout, partition, scratch)
        self._exchange, self._pieces, self._seen = exchange, pieces, set()
        self._ops = ops

    def _change(self, layer):
        self.close()
        if layer in self._seen:
            self.own_slice(layer)[:] = self._ops.to_host(self._pieces[layer])
            self._exchange.gather(layer, self._blocks[layer])
        else:
            self._blocks[layer][:] = 0
        self._seen.add(layer)
        self.layer = layer

    def close(self):
        """Keep what was written last."""
        if self.layer is not None:
            own = self.own_slice(self.layer)
            self._ops.from_host(own, self._pieces[self.layer])
            self.layer = None
