"""Which rows are used: those that fulfil a condition and lack no value they need."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import reduced
from pympi_train.data.standardise import row_chunks
from pympi_train.errors import DataError


def used_rows(rows, options, name, comm):
    """Return the mask of this rank's rows that are used, and remarks. Collective.

    Parameters
    ----------
    rows : Rows
        As read; no row has moved between ranks.
    options : Options
    name : str
        The data set, for messages.
    comm : MPI.Comm

    Returns
    -------
    ndarray of bool, shape (k,)
    list of str

    Raises
    ------
    DataError
        On every rank, if no row is left, or a row lacks a value that it needs.
    """
    there, remarks = filtered_rows(rows, options.rows, name, comm), []
    if options.rows is not None:
        n_used = int(reduced(comm, [np.count_nonzero(there)])[0])
        remarks.append(f"rows: {n_used:,} of {rows.n:,} rows are used")
    if options.missing == "drop":
        with together(comm):
            absent = there & absent_rows(rows)
        n_dropped = int(reduced(comm, [np.count_nonzero(absent)])[0])
        if n_dropped:
            remarks.append(f"{n_dropped:,} rows with missing values are left out")
        there &= ~absent
    elif options.rows is not None:
        with together(comm):
            require_present(rows, there, options.lacking == "features", name)
    return there, remarks


def filtered_rows(rows, row_filter, name, comm):
    """Return the mask of the rows that fulfil a RowFilter, or all. Collective.

    Raises
    ------
    DataError
        On every rank, if no row does.
    """
    if row_filter is None:
        return np.ones(rows.stop - rows.start, dtype=bool)
    with together(comm):
        there = row_filter.mask(rows.filters)
    if not reduced(comm, [np.count_nonzero(there)])[0]:
        message = f"{name}: none of the {rows.n:,} rows fulfils rows = {row_filter}"
        raise agreed_within(comm, DataError(message))
    return there


def absent_rows(rows, with_features=True):
    """Return which of this rank's rows lack any value: ndarray of bool, shape (k,).

    Without ``with_features``: which lack a target or weight.
    """
    lacks = np.zeros(rows.stop - rows.start, dtype=bool)
    if rows.unlabelled is not None:
        lacks |= rows.unlabelled
    for values in (rows.y, rows.weights):
        if getattr(values, "dtype", lacks.dtype).kind == "f":
            absent = np.isnan(values)
            lacks |= absent.any(axis=1) if absent.ndim == 2 else absent
    if with_features and rows.x.dtype.kind == "f" and not isinstance(rows.x, CSR):
        for part in row_chunks(rows.x):
            lacks[part] |= np.isnan(rows.x[part]).any(axis=1)
    return lacks


def require_present(rows, there, may_lack_features, name):
    """Raise DataError at the first used row that lacks a value it needs."""
    lacks = there & absent_rows(rows, not may_lack_features)
    if not lacks.any():
        return
    row = int(np.argmax(lacks))
    what = "its target or weight" if absent_rows(rows, False)[row] else "a feature"
    if what == "a feature" and rows.feature_names is not None:
        column = int(np.argmax(np.isnan(rows.x[row])))
        if rows.x.shape[1] == len(rows.feature_names):
            what = f"the feature {rows.feature_names[column]!r}"
    raise DataError(
        f"{name}: row {rows.start + row} (from 0) lacks {what}; [data] missing deals "
        "with missing values"
    )
