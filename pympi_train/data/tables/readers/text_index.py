"""Where rows are in text files: an index by which any rows are found and read.

All ranks scan a part of the bytes each, as for training (`formats.text.cuts`). The
counts of each piece of 4 MB are then gathered: 10 MB for a terabyte.
"""

from bisect import bisect_left
from itertools import accumulate

import numpy as np

from pympi_train.data.formats.text.cuts import Span, scan_bodies, span_pieces
from pympi_train.data.formats.text.lines import CHUNK_BYTES, opened
from pympi_train.data.formats.text.scans import Before, Piece, find_cuts


class TextIndex:
    """The rows of text files, by pieces.

    Parameters
    ----------
    bodies : sequence of Body
        The files, in order; the same on every rank.
    comm : MPI.Comm
    scan, whole : callable
        As for `cuts.scan_range` and `lines.row_pieces`.

    Attributes
    ----------
    n : int
        Number of rows of all files.

    Raises
    ------
    DataError
        If a file cannot be read, has no row, or has a misplaced quote.

    Notes
    -----
    Collective.
    """

    def __init__(self, bodies, comm, scan, whole, chunk_bytes=CHUNK_BYTES):
        self._bodies, self._scan, self._whole = bodies, scan, whole
        self._chunk_bytes = chunk_bytes
        pieces, _, counts = scan_bodies(bodies, comm, scan, chunk_bytes)
        found = {
            i: np.array([(p[0], p[1], *p[2], p[3], p[4]) for p in own], dtype=np.int64)
            for i, own in pieces.items()
        }
        tables: list = [[] for _ in bodies]
        for part in comm.allgather(found):
            for i, table in part.items():
                tables[i].append(table.reshape(-1, 6))
        self._files = [
            _FilePieces(np.concatenate(parts), body.n_lines)
            for parts, body in zip(tables, bodies)
        ]
        self._starts = [0, *accumulate(counts)]
        self.n = self._starts[-1]

    def read(self, start, stop):
        """Yield (index of the file, bytes of whole rows, lines before them).

        The rows are those from ``start`` to ``stop - 1``.
        """
        for i, body in enumerate(self._bodies):
            first = max(start - self._starts[i], 0)
            last = min(stop, self._starts[i + 1]) - self._starts[i]
            if first < last:
                begin, n_lines = self._cut(i, first)
                end, _ = self._cut(i, last)
                span = Span(i, body.path, begin, end, n_lines, last - first)
                for data, lines in span_pieces(span, self._whole, self._chunk_bytes):
                    yield i, data, lines

    def _cut(self, i, row):
        """Return (byte, lines before) of the start of a row of a file, or its end."""
        body, pieces = self._bodies[i], self._files[i]
        if row == 0:
            return body.start, body.n_lines
        if row == self._starts[i + 1] - self._starts[i]:
            return body.stop, -1
        piece, before = pieces.ending(row)
        with opened(body.path) as file:
            return find_cuts(file, [piece], before, [row], self._scan)[row]


class _FilePieces:
    """The pieces of a file, and the state before each."""

    def __init__(self, table, n_lines):
        self._table = table
        flips = table[:, 4]
        self._inside = (np.cumsum(flips) - flips) & 1
        counts = np.where(self._inside, table[:, 3], table[:, 2])
        self._rows = np.cumsum(counts)  # that end up to the end of each piece
        self._counts = counts
        self._lines = n_lines + np.cumsum(table[:, 5]) - table[:, 5]

    def ending(self, row):
        """Return the Piece in which row ``row - 1`` ends, and the state before it."""
        i = bisect_left(self._rows, row)
        offset, n_bytes, outside, inside, flips, n_lines = self._table[i].tolist()
        before = Before(
            int(self._inside[i]),
            int(self._rows[i] - self._counts[i]),
            int(self._lines[i]),
        )
        return Piece(offset, n_bytes, (outside, inside), flips, n_lines), before
