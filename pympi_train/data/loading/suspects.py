"""Columns that are probably no features, and targets that lose their digits."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.rows import shown
from pympi_train.data.standardise import row_chunks

COARSE = 1e-3  # of the range of a target, lost by rounding
CHUNK_ROWS = 1 << 16  # targets looked at together
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
    Sparse rows are not looked at.
    """
    if isinstance(rows.x, CSR):
        return []
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
                f"{what} counts the rows. If it is an index, list the other columns "
                "in [data] features, or write the file without it (index=False in "
                "pandas)"
            )
    for column, name in enumerate(names or ()):
        if name.casefold() in UNNAMED and column not in told:
            remarks.append(
                f"column {shown(name)} is taken as a feature, but has no name of its "
                "own. If it is an index, list the other columns in [data] features"
            )
    return remarks


def coarse_targets(y, keep, names, dtype, comm):
    """Return a remark for each target whose differences get lost in ``dtype``.

    Parameters
    ----------
    y : ndarray, shape (k, t), float64
        Targets of this rank's rows.
    keep : ndarray of bool, shape (k,)
    names : list of str, length t
    dtype : str
    comm : MPI.Comm

    Returns
    -------
    list of str
        The same on every rank.

    Notes
    -----
    Collective.
    """
    largest = np.full((3, y.shape[1]), -np.inf)
    for start in range(0, len(y), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        part = y[chunk][keep[chunk]]
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.abs(part.astype(dtype) - part)
        for most, values in zip(largest, (part, -part, lost)):
            np.maximum(most, values.max(axis=0, initial=-np.inf), out=most)
    high, low, lost = reduced(comm, largest, op="MAX")
    return [
        f"target {shown(names[i])} lies between {-low[i]:g} and {high[i]:g}, and "
        f"{dtype} rounds it by up to {lost[i]:.2g}; set [data] standardize_target = "
        "true"
        for i in np.flatnonzero((lost > COARSE * (high + low)) & (high > -low))
    ]


def _counts(rows, part, first, columns=slice(None)):
    """Return which columns equal the rows' numbers in the file, plus ``first``."""
    x = rows.x[part, columns]
    numbers = np.arange(part.start, part.start + len(x)) + rows.start + first
    if x.dtype.kind == "f":
        numbers = numbers.astype(x.dtype)  # round as the file's values were
    return (x == numbers[:, None]).all(axis=0) & (x.dtype.kind != "b")
