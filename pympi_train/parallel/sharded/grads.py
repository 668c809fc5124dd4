"""Gradients of which each rank receives a summed shard: at once or by layers."""

import math

from pympi_train.parallel.sharded.layerwise import OneLayer, one_layer


class WholeGrads:
    """Gradients of all parameters on each rank until they are summed over ranks.

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
    block : ndarray, shape (layout.size,)
        This rank's gradient sum.
    pieces : list of ndarray
        This rank's slice of each layer: after ``combine``, summed over the ranks.
    """

    exchanges = False  # whether ranks exchange in ``backward``

    def __init__(self, layout, partition, exchange, laps, ops):
        self._layout, self._partition, self._exchange = layout, partition, exchange
        self._ops, self.block = ops, ops.empty_block(layout)
        self._views = layout.views(self.block)
        self.pieces = [self.block[piece] for piece in partition.pieces]
        self._second = self._second_views = None
        if exchange.is_needed:
            self._out = ops.empty(partition.widest, layout.dtype)

    def backward(self, model, params, index, noise=None):
        """Write the micro-batch's gradient sum, or add it to the previous ones.

        A GradientNoise sees the micro-batch's sum.
        """
        if index == 0:
            model.gradient(params, self._views)
            if noise is not None:
                noise.see_batch(self._ops, self.block)
            return
        if self._second is None:
            self._second = self._ops.empty_block(self._layout)
            self._second_views = self._layout.views(self._second)
        model.gradient(params, self._second_views)
        if noise is not None:
            noise.see_batch(self._ops, self._second)
        self._ops.add(self._second, self.block)

    def combine(self):
        """Sum this rank's slices over the ranks. Collective."""
        if not self._exchange.is_needed:
            return
        for layer, (start, stop) in enumerate(self._partition.layers):
            piece = self.pieces[layer]
            out = self._out[: piece.size]
            self._exchange.reduce(layer, self.block[start:stop], out)
            self._ops.copy(out, piece)

    def forget(self):
        """Zero the gradients."""
        self._ops.fill(self.block, 0)


class SpreadGrads:
    """Gradients that are summed to their owners layer by layer during backward.

    The interface is that of `WholeGrads`. All ranks must run equally many
    micro-batches.
    """

    exchanges = True

    def __init__(self, layout, partition, exchange, laps, ops):
        self._is_layered, self._ops = partition.is_layered, ops
        self._block = ops.empty_block(partition.part)
        self.pieces = [self._block[place] for place in partition.places]
        self.views = _Scattered(layout, partition, exchange, self.pieces, laps, ops)

    def begin(self, index):
        """Prepare for the gradient of micro-batch ``index``."""
        self.views.begin(add=index > 0)

    def backward(self, model, params, index):
        """Sum the micro-batch's gradients over the ranks into the shards. Collective.

        Call ``begin`` before, and ``close`` afterwards, even after an error.

        Raises
        ------
        RuntimeError
            If the model does not take all its layers, from the last to the first.
        """
        model.gradient(params, self.views if self._is_layered else self.views[:])
        self.views.require_all()

    def close(self):
        """Sum the layer written last over the ranks. Collective."""
        self.views.flush()

    def combine(self):
        """Do nothing: all layers are summed already."""

    def forget(self):
        """Zero the summed gradients."""
        self._ops.fill(self._block, 0)


class _Scattered(OneLayer):
    """Gradients that are summed to their owners when the next layer is taken."""

    def __init__(self, layout, partition, exchange, pieces, laps, ops):
        super().__init__(layout, partition, one_layer(layout, partition, ops))
        self._ops = ops
        self._exchange, self._pieces, self._laps = exchange, pieces, laps
        spans = enumerate(partition.spans)
        self._all = [layer for layer, span in spans if span.start < span.stop]
        self._left, self.poisoned = [], False
        self._gaps = _gaps(layout, partition)
        self._out = ops.empty(partition.widest, layout.dtype)
        self._add = False

    def begin(self, add):
        """Prepare for a gradient to ``add`` to the previous one, or to replace it."""
        self._add, self._left, self.layer = add, list(self._all), None
        self.poisoned = False

    def _change(self, layer):
        self.flush()
        if not self._left or self._left[-1] != layer:
            raise RuntimeError(
                f"gradient: a model with layer_spans takes the gradients of all its "
                f"layers, from the last to the first: expected layer "
                f"{self._left[-1] if self._left else None} next, got {layer}"
            )
        self.layer = self._left.pop()
        self._clear_gaps(layer)  # they hold values of another layer

    def _clear_gaps(self, layer):
        for gap in self._gaps[layer]:
            self._ops.fill(self._blocks[layer][gap], 0)

    def require_all(self):
        """Raise RuntimeError unless the model has written all layers."""
        if self._left:
            raise RuntimeError(
                f"gradient: a model with layer_spans takes the gradients of all its "
                f"layers in each call: layers {self._left} are missing"
            )

    def flush(self):
        """Sum the layer in the workspace to its owners. Collective.

        If ``poisoned``, send NaN instead, so that no rank can use the sum.
        """
        if self.layer is None:
            return
        layer, self.layer = self.layer, None
        if self.poisoned:
            self._ops.fill(self._blocks[layer], math.nan)
            self._clear_gaps(layer)
        self._laps.lap("compute")
        piece = self._pieces[layer]
        out = self._out[: piece.size] if self._add else piece
        self._exchange.reduce(layer, self._blocks[layer], out)
        self._laps.lap("communication")
        if self._add:
            self._ops.add(out, piece)


def _gaps(layout, partition):
    """Return, by layer, the slices of padding after its tensors."""
    ends, gaps = [*layout.offsets[1:], layout.size], []
    for span, (start, _) in zip(partition.spans, partition.layers):
        own = zip(layout.tensors[span], layout.offsets[span], ends[span])
        gaps.append(
            [
                slice(at + tensor.size - start, end - start)
                for tensor, at, end in own
                if at + tensor.size < end
            ]
        )
    return gaps
