"""Parameters of which each rank updates a shard: whole everywhere, or nowhere."""

from pympi_train.backends.memory import empty_block
from pympi_train.parallel.layerwise import OneLayer


class WholeParams:
    """All parameters on every rank.

    Parameters
    ----------
    layout : Layout
    partition : Partition
    exchange : Exchange
    laps : Laps

    Attributes
    ----------
    own : ndarray
        What early stopping keeps.
    pieces : list of ndarray
        This rank's slice of each layer.
    """

    meets = False  # ranks meet when a layer is taken

    def __init__(self, layout, partition, exchange, laps):
        self._partition, self._exchange = partition, exchange
        self.own = empty_block(layout)
        self.views = layout.views(self.own)
        self.pieces = [self.own[piece] for piece in partition.pieces]

    def init(self, model, seed):
        """Write the model's starting point."""
        model.init(self.views, seed)

    def spread(self):
        """Let all ranks have the slices that each has updated. Collective."""
        for layer, (start, stop) in enumerate(self._partition.layers):
            self._exchange.gather(layer, self.own[start:stop])

    def restored(self):
        """``own`` was written on every rank: nothing is left to do."""

    def whole(self):
        """Return all parameters."""
        return self.own


class SpreadParams:
    """Of the parameters, a rank holds its shard, and the layer that is computed with.

    As `WholeParams`.
    """

    def __init__(self, layout, partition, exchange, laps):
        self._layout, self._partition, self._exchange = layout, partition, exchange
        self.own = empty_block(partition.part)
        self.pieces = [self.own[place] for place in partition.places]
        self._views = _Gathered(layout, partition, exchange, self.pieces, laps)
        self.meets = partition.is_layered

    @property
    def views(self):
        """Tensors that are gathered when they are taken. Collective.

        For a model without layers they are gathered here: it may take them in any
        order, or not at all, on one rank.
        """
        return self._views if self._partition.is_layered else self._views[:]

    def init(self, model, seed):
        """Write the model's starting point, and keep this rank's slices of it."""
        filled = _Filled(
            self._layout,
            self._partition,
            self._exchange,
            self.pieces,
            self._views.scratch,
        )
        model.init(filled if self._partition.is_layered else filled[:], seed)
        filled.close()
        self._views.layer = None

    def spread(self):
        """The slices were updated: what was gathered before is of no use."""
        self._views.layer = None

    restored = spread

    def whole(self):
        """Return all parameters in a block of their own. Collective."""
        block = empty_block(self._layout)
        for layer, (start, stop) in enumerate(self._partition.layers):
            block[self._partition.pieces[layer]] = self.pieces[layer]
            self._exchange.gather(layer, block[start:stop])
        return block


class _Gathered(OneLayer):
    """Parameters that are gathered layer by layer as they are taken. Collective."""

    def __init__(self, layout, partition, exchange, pieces, laps):
        super().__init__(layout, partition)
        self._exchange, self._pieces, self._laps = exchange, pieces, laps

    def _change(self, layer):
        self._laps.lap("compute")
        self.own_slice(layer)[:] = self._pieces[layer]
        self._exchange.gather(layer, self._blocks[layer])
        self.layer = layer
        self._laps.lap("communication")


class _Filled(OneLayer):
    """Parameters that are written layer by layer; each rank keeps its slices.

    A layer that is taken again is gathered, which is collective.
    """

    def __init__(self, layout, partition, exchange, pieces, scratch):
        super().__init__(layout, partition, scratch)
        self._exchange, self._pieces, self._seen = exchange, pieces, set()

    def _change(self, layer):
        self.close()
        if layer in self._seen:
            self.own_slice(layer)[:] = self._pieces[layer]
            self._exchange.gather(layer, self._blocks[layer])
        else:
            self._blocks[layer][:] = 0
        self._seen.add(layer)
        self.layer = layer

    def close(self):
        """Keep what was written last."""
        if self.layer is not None:
            self._pieces[self.layer][:] = self.own_slice(self.layer)
            self.layer = None
