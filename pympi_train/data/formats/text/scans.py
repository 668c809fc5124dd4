"""Scans of whole lines, before it is known whether they begin inside quotes."""

from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.text.lines import (
    CHUNK_BYTES,
    count_lines,
    read_at,
    row_pieces,
    whole_lines,
)

NONE = -1  # no such line


class Scan(NamedTuple):
    """The result of scanning whole lines.

    Attributes
    ----------
    ends : ndarray of int, shape (m,)
        Position after each line that is not blank, ascending.
    inside : ndarray of int, shape (m,)
        1 where the end is inside quotes, else 0, assuming that the first line starts
        outside quotes. An end outside quotes ends a row.
    flips : int
        1 if the number of quotes is odd, else 0.
    wrong : tuple of int
        First line, from 0, with a misplaced quote, or NONE. Two values: for a first
        line that starts outside quotes, and inside.
    last_quote : int
        Line of the last quote, or NONE.
    """

    ends: np.ndarray
    inside: np.ndarray
    flips: int = 0
    wrong: tuple = (NONE, NONE)
    last_quote: int = NONE

    def row_ends(self, inside):
        """Return the ends of rows if the first line starts inside quotes (1) or not."""
        return self.ends[self.inside == inside]


class Piece(NamedTuple):
    """A scanned run of lines, short enough to scan again to find a row."""

    offset: int
    n_bytes: int
    n_rows: tuple
    flips: int
    n_lines: int


class Summary(NamedTuple):
    """The scan of all lines of a rank as integers, for the Allgather."""

    n_rows_outside: int
    n_rows_inside: int
    flips: int
    n_lines: int
    wrong_outside: int
    wrong_inside: int
    last_quote: int


class Before(NamedTuple):
    """The state before a rank's first line: in quotes (0, 1), and counts so far."""

    inside: int
    n_rows: int
    n_lines: int


def scan_range(file, start, stop, scan, chunk_bytes=CHUNK_BYTES):
    """Scan whole lines; return ``(pieces, Summary)``.

    Parameters
    ----------
    file : file
        Open in binary mode, at any position.
    start, stop : int
        The range of bytes, of whole lines.
    scan : callable
        Function from bytes to `Scan`.
    chunk_bytes : int
        Number of bytes read at once.
    """
    pieces, n_rows, flips, n_lines = [], [0, 0], 0, 0
    wrong, last_quote = [NONE, NONE], NONE
    for offset, data in row_pieces(file, start, stop, whole_lines, chunk_bytes):
        found = scan(data)
        n_inside = int(found.inside.sum())
        here = (found.ends.size - n_inside, n_inside)
        piece = Piece(offset, len(data), here, found.flips, count_lines(data))
        for inside in (0, 1):
            n_rows[inside] += here[inside ^ flips]
            if wrong[inside] == NONE and found.wrong[inside ^ flips] != NONE:
                wrong[inside] = n_lines + found.wrong[inside ^ flips]
        if found.last_quote != NONE:
            last_quote = n_lines + found.last_quote
        pieces.append(piece)
        flips ^= piece.flips
        n_lines += piece.n_lines
    return pieces, Summary(*n_rows, flips, n_lines, *wrong, last_quote)


def chain(summaries, n_lines=0):
    """Return the state before each rank, and the lines of wrong quotes.

    Parameters
    ----------
    summaries : sequence of Summary
        One per rank, in order.
    n_lines : int
        Number of lines before the first rank: the header.

    Returns
    -------
    before : list of Before, one longer than ``summaries``
        The last entry is for the end of the file.
    wrong : int
        First line, from 0 in the file, with a misplaced quote, or NONE.
    open_quote : int
        Line of a quote that is never closed, or NONE.
    """
    before = [Before(0, 0, n_lines)]
    wrong = open_quote = NONE
    for summary in summaries:
        inside, n_rows, lines = before[-1]
        line = summary.wrong_inside if inside else summary.wrong_outside
        if wrong == NONE and line != NONE:
            wrong = lines + line
        if summary.last_quote != NONE:
            open_quote = lines + summary.last_quote
        n_rows += summary.n_rows_inside if inside else summary.n_rows_outside
        before.append(Before(inside ^ summary.flips, n_rows, lines + summary.n_lines))
    return before, wrong, open_quote if before[-1].inside else NONE


def find_cuts(file, pieces, before, rows, scan):
    """Return ``{row: (byte, n_lines)}`` for rows that start after a row end found here.

    Parameters
    ----------
    file : file
        As for `scan_range`, which returned ``pieces``.
    pieces : list of Piece
        The pieces of this rank.
    before : Before
        The state before the first piece.
    rows : iterable of int
        Requested row numbers. Those that do not start here are omitted.
    scan : callable
        Function from bytes to `Scan`.
    """
    cuts = {}
    inside, first, n_lines = before
    for piece in pieces:
        last = first + piece.n_rows[inside]
        wanted = [row for row in rows if first < row <= last]
        if wanted:
            data = read_at(file, piece.offset, piece.n_bytes)
            ends = scan(data).row_ends(inside)
            for row in wanted:
                end = int(ends[row - first - 1])
                cuts[row] = piece.offset + end, n_lines + data.count(b"\n", 0, end)
        first, inside, n_lines = last, inside ^ piece.flips, n_lines + piece.n_lines
    return cuts
