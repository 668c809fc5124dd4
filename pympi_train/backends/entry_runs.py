"""Sparse rows as runs of entries, in the form that the kernels of a GPU take."""

from typing import NamedTuple

import numpy as np

PIECE = 256  # maximum number of entries of a run: longer ones are cut, and joined


class EntryRuns(NamedTuple):
    """Entries in an order in which each output's are a run.

    Attributes
    ----------
    indices : ndarray of int32, shape (e,)
        Which row of the dense factor each entry multiplies.
    values : ndarray, shape (e,)
    starts : ndarray of int64, shape (n + 1,)
        Run i has the entries from ``starts[i]`` up to ``starts[i + 1]``.
    places : ndarray of int32, shape (n,)
        The output of run i; or -1 - p if it is a piece of a longer run, whose sum is
        row p of the pieces.
    join_starts : ndarray of int64, shape (s + 1,)
        Output ``join_places[i]`` is the sum of these pieces.
    join_places : ndarray of int32, shape (s,)
    n_pieces : int
        Number of pieces of all long runs.
    """

    indices: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    join_starts: np.ndarray
    join_places: np.ndarray
    n_pieces: int

    @property
    def arrays(self):
        """All arrays, in the order of the fields."""
        return self[:-1]


def runs_of_rows(x):
    """Return the EntryRuns of X W, for a compact CSR: a run for each row, or pieces."""
    starts = np.append(x.starts, x.n_entries)
    places = np.arange(len(x), dtype=np.int32)
    return EntryRuns(x.indices, x.values, *_cut(starts, places))


def runs_of_columns(x):
    """Return the EntryRuns of X^T delta: those of the columns that occur.

    The entries of a column are in the order of the rows.
    """
    order = _order_by_column(x.indices, x.shape[1])
    columns = x.indices[order]
    firsts = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    starts = np.concatenate(([0], firsts, [len(columns)]))
    if len(columns) == 0:
        starts = starts[:1]
    rows = np.repeat(np.arange(len(x), dtype=np.int32), x.counts)[order]
    places = columns[starts[:-1]]
    return EntryRuns(rows, x.values[order], *_cut(starts, places))


def _order_by_column(columns, n_columns):
    """Return the stable order of entries by column, in time linear in their number.

    NumPy sorts 16-bit numbers by counting them.
    """
    order = np.argsort(columns.astype(np.uint16), kind="stable")
    if n_columns > 2**16:
        high = (columns >> 16).astype(np.uint16)
        order = order[np.argsort(high[order], kind="stable")]
    return order


def _cut(starts, places):
    """Return the fields of EntryRuns after the entries, with long runs cut."""
    n_pieces = np.maximum(-(-np.diff(starts) // PIECE), 1)
    is_cut = n_pieces > 1
    ends = np.cumsum(n_pieces)
    n = int(ends[-1]) if len(ends) else 0
    first_piece = np.repeat(ends - n_pieces, n_pieces)
    own_starts = np.empty(n + 1, np.int64)
    own_starts[:n] = np.repeat(starts[:-1], n_pieces)
    own_starts[:n] += PIECE * (np.arange(n) - first_piece)
    own_starts[n] = starts[-1]
    own_places = np.repeat(places, n_pieces)
    is_piece = np.repeat(is_cut, n_pieces)
    joined = np.concatenate(([0], np.cumsum(n_pieces[is_cut])))
    own_places[is_piece] = -1 - np.arange(joined[-1])
    return own_starts, own_places, joined, places[is_cut], int(joined[-1])
