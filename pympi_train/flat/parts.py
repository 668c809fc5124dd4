"""Parts of a flat block: the pieces that one rank owns."""

import numpy as np

from pympi_train.flat.memory import ALIGN
from pympi_train.flat.runs import Runs

VECTOR = 64  # slices from which NumPy is faster than a loop


def even_cuts(start, stop, n_slices, step=ALIGN):
    r"""Return the cuts that divide ``[start, stop)`` as evenly as ``step`` allows.

    With :math:`q = \lceil (stop - start) / step \rceil` steps, cut :math:`i` lies at
    :math:`start + \lfloor i q / S \rfloor step`, the last one at ``stop``.

    Parameters
    ----------
    start, stop : int
        ``0 <= start <= stop``; ``start`` a multiple of ``step``.
    n_slices : int
        At least 1. If there are more slices than steps, some are empty.
    step : int
        All cuts but the last lie at multiples of it.

    Returns
    -------
    list of int, length n_slices + 1

    Examples
    --------
    >>> even_cuts(0, 44, 4)
    [0, 8, 24, 32, 44]
    """
    n_steps = -(-(stop - start) // step)
    if n_slices < VECTOR or n_slices * n_steps >= 2**63:
        cuts = [start + i * n_steps // n_slices * step for i in range(n_slices)]
        return [min(cut, stop) for cut in cuts] + [stop]
    cuts = start + np.arange(n_slices) * n_steps // n_slices * step
    return [*np.minimum(cuts, stop).tolist(), stop]


class Part:
    """Pieces of a flat block, stored consecutively in their own block.

    An optimizer accepts it as a ``Layout``, because it needs only size, dtype and runs.

    Parameters
    ----------
    layout : Layout
        Layout of the whole block.
    pieces : sequence of (int, int)
        Bounds (start, stop) of each piece, ascending; empty pieces are dropped.

    Attributes
    ----------
    pieces : tuple of slice
        Position of each piece in the whole block.
    places : tuple of slice
        Position of each piece in the part.
    size : int
        Number of elements of all pieces.
    """

    def __init__(self, layout, pieces):
        self.layout, self.dtype = layout, layout.dtype
        self.pieces = tuple(slice(a, b) for a, b in pieces if a < b)
        places, end = [], 0
        for piece in self.pieces:
            places.append(slice(end, end + piece.stop - piece.start))
            end = places[-1].stop
        self.places, self.size = tuple(places), end

    def runs(self):
        """Return the Runs of the part, as ``Layout.runs``."""
        ends = []
        for piece, place in zip(self.pieces, self.places):
            for run, is_weight in self.layout.runs():
                low, high = max(run.start, piece.start), min(run.stop, piece.stop)
                if low < high:
                    ends.append((place.start + high - piece.start, is_weight))
        return Runs.joined(ends)

    def take(self, block, out):
        """Copy the pieces of the whole ``block`` into ``out``, shape (size,)."""
        for piece, place in zip(self.pieces, self.places):
            out[place] = block[piece]

    def put(self, values, block):
        """Copy ``values``, shape (size,), to the pieces of the whole ``block``."""
        for piece, place in zip(self.pieces, self.places):
            block[piece] = values[place]
