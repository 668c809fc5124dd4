"""The slice of each layer that a rank owns: arithmetic without MPI."""

from pympi_train.comm.collectives import Counts
from pympi_train.flat.buckets import layer_bounds
from pympi_train.flat.parts import Part, even_cuts


class Partition:
    """A block whose layers are each cut into one slice per rank.

    Slices begin at multiples of 8 elements of their layer and are as equal as that
    allows. In a small layer, some ranks have empty slices. Nothing is padded.

    Parameters
    ----------
    layout : Layout
    spans : sequence of slice
        The model's ``layer_spans``; if empty, the block is one layer.
    n_ranks, rank : int

    Attributes
    ----------
    is_layered : bool
        Whether ``spans`` were given.
    layers : list of (int, int)
        First element of each layer and the one after its last.
    sizes : list of int
        Elements of each layer.
    counts : list of Counts
        By layer: elements of each rank's slice.
    pieces : list of slice
        By layer: this rank's slice of the block; may be empty.
    places : list of slice
        By layer: the position of that slice in this rank's shard.
    largest : int
        Elements of the largest layer.
    widest : int
        Elements of this rank's largest slice.
    part : Part
        This rank's shard.

    Examples
    --------
    >>> from pympi_train.flat.memory import Layout, Tensor
    >>> layout = Layout([Tensor("w", (3, 4)), Tensor("b", (4,))], "float32")
    >>> partition = Partition(layout, [slice(0, 1), slice(1, 2)], n_ranks=2, rank=1)
    >>> partition.pieces
    [slice(8, 16, None), slice(16, 24, None)]
    """

    def __init__(self, layout, spans, n_ranks, rank):
        self.is_layered = len(spans) > 0
        self.spans = tuple(spans) or (slice(0, len(layout.tensors)),)
        self.layers = layer_bounds(layout, self.spans)
        self.sizes = [stop - start for start, stop in self.layers]
        cuts = [even_cuts(start, stop, n_ranks) for start, stop in self.layers]
        self.counts = [Counts(b - a for a, b in zip(cut, cut[1:])) for cut in cuts]
        self.pieces = [slice(cut[rank], cut[rank + 1]) for cut in cuts]
        self.places, end = [], 0
        for piece in self.pieces:
            self.places.append(slice(end, end + piece.stop - piece.start))
            end = self.places[-1].stop
        self.largest = max(self.sizes)
        self.part = Part(layout, [(piece.start, piece.stop) for piece in self.pieces])
        self.widest = max(place.stop - place.start for place in self.places)
        self._layer_of = [
            layer
            for layer, span in enumerate(self.spans)
            for _ in range(span.start, span.stop)
        ]

    def find(self, index):
        """Return (layer, numbers within it) of the tensors that ``index`` selects.

        Parameters
        ----------
        index : int or slice
            Of the layout's tensors.

        Returns
        -------
        layer : int or None
            None if no tensor is selected.
        chosen : int or list of int

        Raises
        ------
        ValueError
            If the tensors belong to more than one layer.
        """
        if not isinstance(index, slice):
            number = range(len(self._layer_of))[index]
            layer = self._layer_of[number]
            return layer, number - self.spans[layer].start
        numbers = range(len(self._layer_of))[index]
        if not numbers:
            return None, []
        layer = self._layer_of[numbers[0]]
        if self._layer_of[numbers[-1]] != layer:
            raise ValueError(
                f"a model with layer_spans takes the tensors of one layer at a time, "
                f"{self.spans[layer]} or fewer; got {index}, which is more than a rank "
                f"holds"
            )
        first = self.spans[layer].start
        return layer, [number - first for number in numbers]
