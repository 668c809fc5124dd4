"""The result of every reader, and functions that the readers share."""

import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pympi_train.errors import DataError


class Categories(NamedTuple):
    """The categories of a column of features.

    Attributes
    ----------
    place : int
        Place of the column among the features' names.
    column : int
        Column of the features; differs from ``place`` after an array of several.
    values : tuple of str
        The categories of all ranks' rows; integers by value, then text.
    """

    place: int
    column: int
    values: tuple


class RowRange(NamedTuple):
    """A rank's rows, from ``start`` up to ``stop``, of all ``n``."""

    n: int
    start: int
    stop: int


@dataclass
class Rows:
    """One rank's share of the rows of a file.

    Attributes
    ----------
    n : int
        Rows of the whole file.
    start, stop : int
        This rank's rows, ``start = r*n // P``; ``k = stop - start`` may be 0.
    x : ndarray or CSR, shape (k, d), bool, integer or floating
        The features; an array may be a read-only view of the file, with its dtype and
        strides. A column of categories has their indices in ``categories``, one of
        dates has days since 1970. NaN stands for a missing value.
    y : ndarray, TextLabels or None
        Integer labels, shape (k,), int64; text labels; or numbers, shape (k, t),
        float64. The kind is the same on every rank. None if the target is absent.
    feature_names : tuple of str or None
        Columns (.csv) or arrays (.npz, .h5, .zarr) of ``x``, in order. Pass them as
        ``features`` to read another file in the same way.
    zero_based : bool or None
        Whether indices start at 0 (.svm).
    weights : ndarray, shape (k,), float64, or None
        Weight of each sample.
    categories : tuple of Categories
        Of the columns of ``x`` that have some, in their order.
    dates : tuple of (int, int)
        Place among the features' names, and column, of each column of dates.
    others : dict of str to TextLabels
        Other columns of text; "" stands for a missing value.
    unlabelled : ndarray of bool, shape (k,), or None
        Rows that lack their label; None: none do.
    filters : dict of str to (ndarray or TextLabels)
        Columns that decide which rows are used: numbers, shape (k,), float64, NaN for
        a missing value; or text, likewise "".
    reach : callable or None
        ``reach(start, stop)`` returns the features of any rows of the file, in the
        form of ``x``. None, on every rank, if ``x`` is not a view of the file.
    columns : tuple of str or None
        All columns of a table, used or not.
    remarks : tuple of str
        What the user should know of the file; equal on all ranks.
    """

    n: int
    start: int
    stop: int
    x: np.ndarray
    y: Any = None
    feature_names: tuple | None = None
    zero_based: bool | None = None
    weights: Any = None
    categories: tuple = ()
    dates: tuple = ()
    others: dict = field(default_factory=dict)
    unlabelled: Any = None
    filters: dict = field(default_factory=dict)
    reach: Any = None
    columns: Any = None
    remarks: tuple = ()


def as_names(names):
    """Return a name or path, or a sequence of these, or None as a list."""
    if names is None:
        return []
    return [names] if isinstance(names, (str, os.PathLike)) else list(names)


def require_unique(place, names):
    """Raise DataError if two columns have one name."""
    seen = set()
    for name in names:
        if name in seen:
            text = f"two columns have the name {name!r}; rename one of them"
            raise DataError(f"{place}: {text}")
        seen.add(name)


def listed(names, limit=12):
    """Return at most ``limit`` names as text for a message."""
    text = ", ".join(repr(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more} more" if more > 0 else text or "none"


def shown(text, limit=40):
    """Return text from a file in a form that is safe in a message."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
