"""Parameters of which each rank updates a shard: replicated or sharded."""

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
        The parameters that this rank holds.
    space : Layout or Part
        Which elements of the whole block ``own`` holds.
    pieces : list of ndarray
        This rank's slice of each layer.
    """

    exchanges = False  # whether ranks exchange when the model takes a layer

    def __init__(self, layout, partition, exchange, laps, ops):
        self._partition, self._exchange, self._ops = partition, exchange, ops
        self._layout, self.space, self.own = layout, layout, ops.empty_block(layout)
        self.views = layout.views(self.own)
        self.pieces = [self.own[piece] for piece in partition.pieces]

    def init(self, model, seed):
        """Write the model's starting point."""
        init_block(model, seed, self._layout, self.own, self._ops)

    def spread(self):
        """Gather the slices that each rank has updated. Collective."""
        for layer, (start, stop) in enumerate(self._partition.layers):
            self._exchange.gather(layer, self.own[start:stop])

    def restored(self):
        """Do nothing: ``own`` was written on every rank."""

    def whole(self):
        """Return all parameters in host memory."""
        return self._ops.to_host(self.own)


class SpreadParams:
    """A shard of the parameters on each rank, and a workspace for the current layer.

    The interface is that of `WholeParams`.
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
        """Tensors that are gathered when the model takes them. Collective.

        For a model without layers they are gathered here, because on some rank it may
        take them in another order or not at all.
        """
        return self._views if self._partition.is_layered else self._views[:]

    def init(self, model, seed):
        """Write the model's starting point, but keep only this rank's slices."""
        # Models initialise with NumPy: with a GPU, in a workspace in host memory.
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
        """Invalidate the gathered layer: the slices were updated."""
        self._views.layer = None

    restored = spread

    def whole(self):
        """Return all parameters in a new block in host memory. Collective."""
        block = empty_block(self._layout)
        for layer, (start, stop) in enumerate(self._partition.layers):
            own = self._ops.to_host(self.pieces[layer])
            block[self._partition.pieces[layer]] = own
            self._host_exchange.gather(layer, block[start:stop])
        return block


class _Gathered(OneLayer):
    """Parameters that are gathered layer by layer when taken. Collective."""

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

    A layer that is taken a second time is gathered, which is collective.
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
        """Keep this rank's slice of the layer written last."""
        if self.layer is not None:
            own = self.own_slice(self.layer)
            self._ops.from_host(own, self._pieces[self.layer])
            self.layer = None
