"""Which stretches of the gradient block travel together, last layer first."""

from pympi_train.flat.memory import ALIGN
from pympi_train.flat.parts import even_cuts


def layer_bounds(layout, spans):
    """Return where each layer lies in a block, [(start, stop), ...] in elements.

    Parameters
    ----------
    layout : Layout
    spans : sequence of slice
        Tensors of each layer, first layer first, all tensors in all: what a model's
        ``layer_spans`` are.
    """
    starts = [*layout.offsets, layout.size]
    return [(starts[span.start], starts[span.stop]) for span in spans]


def make_buckets(layers, most):
    """Return the buckets of a block, [(start, stop), ...], in the order they fill.

    Backward fills the block layer by layer from its end. A bucket is several whole
    layers that together have no more than ``most`` elements, or one of the pieces, as
    equal as multiples of 8 allow, of a layer that has more.

    Parameters
    ----------
    layers : sequence of (int, int)
        First element and the one after the last, first layer first, without gaps.
    most : int
        Elements of a bucket, at least 8.

    Returns
    -------
    list of (int, int)
        Each begins where the one after it in the list ends; none is empty.

    Examples
    --------
    >>> make_buckets([(0, 40), (40, 48), (48, 56)], 16)
    [(40, 56), (24, 40), (8, 24), (0, 8)]
    """
    buckets, most, open_end = [], most // ALIGN * ALIGN, None
    for start, stop in reversed(layers):
        if start == stop:
            continue
        if open_end is not None and open_end - start <= most:
            buckets[-1] = (start, open_end)
            continue
        cuts = even_cuts(start, stop, -(-(stop - start) // most))
        buckets += zip(reversed(cuts[:-1]), reversed(cuts[1:]))
        # Nothing joins a piece: that would keep it back until the next layer is done.
        open_end = stop if len(cuts) == 2 else None
    return buckets
