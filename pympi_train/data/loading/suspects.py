"""Columns that are probably no features: row numbers and unnamed columns."""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.rows import shown
from pympi_train.data.standardise import row_chunks

LEAST_ROWS = 10  # fewer may count upwards by chance
UNNAMED = ("", "unnamed: 0")  # pandas' names of an index, written and read again


def suspects(rows, comm):
    """Return a remark for each column that looks like an index of the rows.

    Parameters
    ----------
    rows : Rows
        As read; no row has moved between ranks.
    comm : MPI.Comm
        The ranks that read them.

    Returns
    -------
    list of str
        The same on every rank.

    Notes
    -----
    Collective.
    Reads three rows per rank. Columns that count upwards in these are read whole.
    """
    names = rows.feature_names
    if names is None or len(names) != rows.x.shape[1]:
        names = None
    # Candidates: columns that may be the row's number, plus 0 or 1.
    counts = np.array([_counts(rows, slice(0, 3), first) for first in (0, 1)])
    counts = reduced(comm, counts, op="MIN")
    candidates = np.flatnonzero(counts.any(axis=0)) if rows.n >= LEAST_ROWS else []
    remarks, told = [], set()
    for column in candidates:
        first = int(np.argmax(counts[:, column]))
        own = all(
            _counts(rows, part, first, slice(column, column + 1)).all()
            for part in row_chunks(rows.x)
        )
        if reduced(comm, [own], op="MIN")[0]:
            what = f"feature {column} (from 0)" if names is None else (
                f"the feature {shown(names[column])}"
            )
            told.add(column)
            remarks.append(
                f"{what} counts the rows. If it is an index, leave it out by [data] "
                "features, or when the file is written (index=False in pandas)"
            )
    for column, name in enumerate(names or ()):
        if name.casefold() in UNNAMED and column not in told:
            remarks.append(
                f"column {shown(name)} is taken as a feature, but has no name of its "
                "own. If it is an index, leave it out by [data] features"
            )
    return remarks


def _counts(rows, part, first, columns=slice(None)):
    """Return which columns equal the rows' numbers in the file, plus ``first``."""
    x = rows.x[part, columns]
    numbers = np.arange(part.start, part.start + len(x)) + rows.start + first
    if x.dtype.kind == "f":
        numbers = numbers.astype(x.dtype)  # round as the file's values were
    return (x == numbers[:, None]).all(axis=0) & (x.dtype.kind != "b")
