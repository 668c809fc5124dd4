"""Buckets: stretches of the gradient block sent together, last layer first."""

from pympi_train.flat.memory import ALIGN
from pympi_train.flat.parts import even_cuts


def layer_bounds(layout, spans):
    """Return the bounds of each layer in a block, [(start, stop), ...] in elements.

    Parameters
    ----------
    layout : Layout
    spans : sequence of slice
        Tensors of each layer, first layer first, together all tensors: a model's
        ``layer_spans``.
    """
    starts = [*layout.offsets, layout.size]
    return [(starts[span.start], starts[span.stop]) for span in spans]


def make_buckets(layers, most):
    """Return the buckets of a block, [(start, stop), ...], in the order they fill.

    Backward fills the block layer by layer, from its end. A bucket holds one or more
    whole layers of at most ``most`` elements together. A larger layer is divided into
    several buckets, as evenly as multiples of 8 allow.

    Parameters
    ----------
    layers : sequence of (int, int)
        Bounds (start, stop) of each layer, first layer first, without gaps.
    most : int
        Maximum number of elements of a bucket, at least 8.

    Returns
    -------
    list of (int, int)
        Each bucket begins where the next one in the list ends; none is empty.

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
        # Nothing is added to a piece, which would then have to wait for the next layer.
        open_end = stop if len(cuts) == 2 else None
    return buckets
