"""Fitting the preparation of features over the training rows of all ranks."""

from dataclasses import replace

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.categories import in_order
from pympi_train.data.formats.rows import shown
from pympi_train.data.loading.sparse import fit_sparse_scaling
from pympi_train.data.order_statistics import medians
from pympi_train.data.preparation import Encoding, Preparation
from pympi_train.data.sources.mapped import MappedRows
from pympi_train.data.standardise import Scaling, fit_moments
from pympi_train.errors import DataError


def fit_encodings(rows, train, options, comm):
    """Return the Encoding of each column of categories of ``rows``. Collective.

    Categories are those of the training rows, in order; a missing value is one too.
    With ``options.rare_categories``, those of fewer rows are left out, and the code
    after the last stands for any other.
    """
    ordinal = _places(options.ordinal, rows)
    encodings = []
    for found in rows.categories:
        texts = [*found.values, ""]
        codes = _codes(rows.x[:, found.column], len(found.values))
        counts = reduced(comm, np.bincount(codes[train], minlength=len(texts)))
        least = options.rare_categories or 1
        values = [text for text, count in zip(texts, counts) if count >= least]
        kind = "ordinal" if found.place in ordinal else "one-hot"
        encodings.append(
            Encoding(
                found.place,
                found.column,
                in_order(values),
                kind,
                options.rare_categories is not None,
            )
        )
    return tuple(encodings)


def require_categories(rows, there, folds, n_folds, name, comm):
    """Raise DataError on every rank if one fold has all rows of a category. Collective.

    The training that holds it out would not know the category.

    Parameters
    ----------
    rows : Rows
    there : ndarray of bool, shape (k,)
        The rows that are used.
    folds : ndarray of int, shape (k,)
        The fold of each used row.
    n_folds : int
    name : str
        The data set, for messages.
    comm : MPI.Comm
    """
    for found in rows.categories:
        codes = _codes(rows.x[:, found.column], len(found.values))
        counts = np.zeros((len(found.values) + 1, n_folds))
        np.add.at(counts, (codes[there], folds[there]), 1)
        counts = reduced(comm, counts)
        alone = np.flatnonzero(np.count_nonzero(counts, axis=1) == 1)
        if not len(alone):
            continue
        code, column = alone[0], _shown_column(rows, found.place)
        text = shown(found.values[code]) if code < len(found.values) else "no value"
        raise agreed_within(
            comm,
            DataError(
                f"{name}: all rows with {text} in the column {column} are in fold "
                f"{int(counts[code].argmax())} of {n_folds}, so no training row has it "
                "there: ask for fewer --folds, or [data] rare_categories = 1 gives "
                "unknown categories a column of their own"
            ),
        )


def require_weighty_folds(rows, there, folds, n_folds, name, comm):
    """Raise DataError on every rank if all rows in, or outside, a fold have weight 0.

    Arguments as for `require_categories`. Folds without a row are no error here.
    Collective.
    """
    counts = np.zeros((2, n_folds))
    counts[0] = np.bincount(folds[there], minlength=n_folds)
    counts[1] = np.bincount(folds[there & (rows.weights > 0)], minlength=n_folds)
    n_rows, n_weighty = reduced(comm, counts)
    for fold in np.flatnonzero(n_rows).tolist():
        where = "in" if not n_weighty[fold] else "outside"
        if n_weighty[fold] in (0, n_weighty.sum()):
            raise agreed_within(
                comm,
                DataError(
                    f"{name}: all rows {where} fold {fold} of {n_folds} have weight 0: "
                    "ask for fewer --folds"
                ),
            )


def _shown_column(rows, place):
    """Return the name of a feature, or its number, for messages."""
    names = rows.feature_names
    return place if names is None else shown(names[place])


def _places(names, rows):
    """Return the places of some names among those of the features."""
    names = [names] if isinstance(names, str) else names or ()
    return [rows.feature_names.index(name) for name in names]


def _codes(column, n_values):
    """Return codes as read, with ``n_values`` for a missing one, as intp."""
    return np.where(np.isnan(column), n_values, column).astype(np.intp)


def encode_categories(rows, encodings, used, name, comm):
    """Replace codes as read by those of the training, in place. Collective.

    Raises
    ------
    DataError
        On every rank, if a row of the mask ``used`` has an unknown category.
    """
    with together(comm):
        for found, encoding in zip(rows.categories, encodings):
            texts = [*found.values, ""]
            own = encoding.codes_of(texts)
            before = _codes(rows.x[:, found.column], len(found.values))
            codes = own[before]
            unknown = (codes < 0) & used
            if unknown.any():
                row = int(np.argmax(unknown))
                text = shown(texts[before[row]]) if texts[before[row]] else "no value"
                column = _shown_column(rows, found.place)
                raise DataError(
                    f"{name}: row {rows.start + row} (from 0) has {text} in the column "
                    f"{column}, which no training row has; [data] rare_categories = 1 "
                    "in the training gives unknown categories a column of their own"
                )
            rows.x[:, found.column] = np.maximum(codes, 0)


def fit_preparation(x, keep, options, encodings, dates, names, name, comm):
    """Return the Preparation of the features ``x`` as read. Collective.

    Parameters
    ----------
    x : array_like or CSR, shape (k, n_columns)
        This rank's rows, with categories encoded; each row on the rank that owns its
        group if there are groups.
    keep : ndarray of bool, shape (k,)
        Its training rows.
    options : Options
    encodings : tuple of Encoding
    dates : tuple
        As in `Rows`.
    names : tuple of str or None
        Of the features.
    name : str
        The data set, for messages.
    comm : MPI.Comm

    Returns
    -------
    Preparation
    int
        Number of missing values in the training rows that are filled.
    """
    prepared = Preparation(
        x.shape[1],
        missing=options.missing,
        encodings=encodings,
        dates=dates,
        clip=None if options.clip is None else float(options.clip),
    )
    n_missing, moments = 0, None
    if options.lacking == "features":
        moments = fit_moments(x, keep, comm, options.virtual_shards)
        n_rows = reduced(comm, [np.count_nonzero(keep)])[0]
        lacking = n_rows - moments.count
        n_missing = int(lacking.sum())
        with together(comm):
            if not moments.count.all():
                column = int(np.argmin(moments.count))
                raise DataError(
                    f"{name}: {_named(column, names)} has no value in any training "
                    "row; name it in [data] drop"
                )
        fill = np.zeros(x.shape[1])
        if options.missing == "mean":
            fill = moments.mean
        elif options.missing == "median":
            fill = medians(x, keep, moments.count, comm)
        indicators = np.flatnonzero(lacking) if options.missing_indicator else ()
        prepared = replace(
            prepared, fill=fill, indicators=tuple(int(column) for column in indicators)
        )
    if options.standardize and isinstance(x, CSR):
        scaling = fit_sparse_scaling(x, keep, comm, options.virtual_shards)
        require_usable(scaling, "feature", name, comm)
        prepared = replace(prepared, scaling=scaling)
    elif options.standardize:
        if moments is None or n_missing:
            filled = x
            if n_missing:
                only_filled = Preparation(x.shape[1], fill=prepared.fill)
                everything = np.ones(len(x), dtype=bool)
                filled = MappedRows(x, everything, only_filled, np.float64)
            moments = fit_moments(filled, keep, comm, options.virtual_shards)
        scaling = moments.scaling
        require_usable(scaling, "feature", name, comm)
        prepared = replace(prepared, scaling=_of_numbers(scaling, encodings))
    return prepared, n_missing


def require_usable(scaling, what, name, comm):
    """Raise DataError on every rank unless a scaling is finite. Collective."""
    with together(comm):
        finite = np.isfinite(scaling.scale)
        if not finite.all():
            raise DataError(
                f"{name}: {what} {np.argmin(finite)} (from 0) is too large to be "
                "standardised: its square is not finite; divide it by its size first"
            )


def _of_numbers(scaling, encodings):
    """Return the scaling that leaves the codes of one-hot columns alone."""
    mean, scale = scaling.mean.copy(), scaling.scale.copy()
    for encoding in encodings:
        if encoding.kind == "one-hot":
            mean[encoding.column], scale[encoding.column] = 0.0, 1.0
    return Scaling(mean, scale)


def _named(column, names):
    return f"feature {column} (from 0)" if names is None else (
        f"the feature {shown(names[column])}"
    )
