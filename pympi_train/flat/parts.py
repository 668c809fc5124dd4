"""Parts of a flat block: what one rank owns of it where ranks share the work."""

from pympi_train.flat.memory import ALIGN
from pympi_train.flat.runs import Runs


def even_cuts(start, stop, n_slices, step=ALIGN):
    r"""Return the cuts of ``[start, stop)`` into slices as equal as ``step`` allows.

    With :math:`q = \lceil (stop - start) / step \rceil` steps, cut :math:`i` lies at
    :math:`start + \lfloor i q / S \rfloor step`, the last one at ``stop``.

    Parameters
    ----------
    start, stop : int
        ``0 <= start <= stop``; ``start`` a multiple of ``step``.
    n_slices : int
        At least 1; more than there are steps leaves slices empty.
    step : int
        Elements between two possible cuts.

    Returns
    -------
    list of int, length n_slices + 1

    Examples
    --------
    >>> even_cuts(0, 44, 4)
    [0, 8, 24, 32, 44]
    """
    n_steps = -(-(stop - start) // step)
    cuts = [start + i * n_steps // n_slices * step for i in range(n_slices)]
    return [min(cut, stop) for cut in cuts] + [stop]


class Part:
    """Pieces of a flat block, laid one after the other in a block of their own.

    An optimizer takes it where it takes a ``Layout``: it asks for size, dtype and runs.

    Parameters
    ----------
    layout : Layout
        Of the whole block.
    pieces : sequence of (int, int)
        First element and the one after the last, ascending; empty ones are dropped.

    Attributes
    ----------
    pieces : tuple of slice
        Of the whole block.
    places : tuple of slice
        Where each piece lies in the part.
    size : int
        Elements of all pieces.
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
