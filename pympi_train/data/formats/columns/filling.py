"""This rank's rows of a table, filled piece by piece."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.categories import agree_categories
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import Categories, Rows
from pympi_train.data.formats.spelling import spelled_alike
from pympi_train.data.formats.text_column import DayColumn, TextColumn

_COLUMNS = {"label": LabelColumn, "date": DayColumn}  # TextColumn for other kinds


class Panel(NamedTuple):
    """Numbers of some of the rows that are added, in some columns.

    Attributes
    ----------
    first : int
        The first of these rows, counted from the first one that is added.
    places : tuple of int, length w
        Of the columns among ``Columns.numbers``.
    values : ndarray, shape (m, w)
    """

    first: int
    places: tuple
    values: np.ndarray


class Filling:
    """This rank's rows, filled piece by piece.

    Parameters
    ----------
    plan : Plan
    k : int
        Number of rows.
    dtype : dtype
        Of the features.
    streamed : callable, optional
        Function from columns in memory, by number, to the features as StreamedRows.
        They are then not kept, except for categories and dates.
    x : ndarray, shape (k, number of features), optional
        Memory for the features, of this dtype.

    Attributes
    ----------
    plan : Plan
    dtype : dtype
    n : int
        Rows so far.
    """

    def __init__(self, plan, k, dtype, streamed=None, x=None):
        self.plan, self._streamed, self.dtype = plan, streamed, np.dtype(dtype)
        self.n = 0
        n_kept = k if streamed is None else 0
        self._x = np.empty((n_kept, len(plan.names)), dtype) if x is None else x
        self._numbers = np.empty((k, len(plan.columns.numbers) - len(plan.numeric)))
        self._texts = [_COLUMNS.get(kind, TextColumn)(k) for kind in plan.columns.kinds]

    def add(self, numbers, texts):
        """Add the next rows, as `parse_csv` returns them."""
        rows = slice(self.n, self.n + len(numbers))
        n_numeric = len(self.plan.numeric)
        if self._streamed is None:
            all_ = n_numeric == len(self.plan.names)
            columns = slice(None) if all_ else list(self.plan.numeric)
            self._x[rows, columns] = numbers[:, :n_numeric]
        self._numbers[rows] = numbers[:, n_numeric:]
        self._add_texts(texts)
        self.n = rows.stop

    def add_piece(self, piece):
        """Add the next rows, those of a piece like `ArrowPiece`."""
        for first, places, values in piece.numbers():
            start = self.n + first
            for is_feature, to, of in routes(self.plan.numeric, places):
                if not is_feature or self._streamed is None:
                    out = self._x if is_feature else self._numbers
                    out[start : start + len(values), to] = values[:, of]
        self._add_texts(piece.texts())
        self.n += len(piece)

    def features(self, resident=None):
        """Return the features, shape (k, d); ``resident`` has columns by number."""
        if self._streamed is not None:
            return self._streamed(resident)
        for column, values in (resident or {}).items():
            self._x[:, column] = values
        return self._x

    def _add_texts(self, texts):
        for column, found in zip(self._texts, texts):
            column.put(self.n, found)

    def rows(self, cut, comm, name, text_labels, reach=None):
        """Return the Rows; ``cut`` says which they are. Collective.

        ``reach`` is that of `Rows`.
        """
        plan, texts = self.plan, list(self._texts)
        y = unlabelled = None
        if "label" in plan.columns.kinds:
            labels = texts.pop(0)
            y = labels.agree(comm, name, text_labels, cut.start)
            unlabelled = labels.absent
        elif plan.n_targets:
            y = self._numbers[:, : plan.n_targets]
        categories, resident = [], {}
        for place in plan.categories:
            resident[place], values = agree_categories(texts.pop(0), comm)
            categories.append(Categories(place, place, values))
        for place in plan.dates:
            resident[place] = texts.pop(0).days
        others = {key: spelled_alike(texts.pop(0)) for key in plan.others}
        first = plan.n_targets + plan.has_weights
        filters = {
            key: self._numbers[:, first + i]
            for i, key in enumerate(plan.filters_of("number"))
        }
        filters |= {
            key: spelled_alike(texts.pop(0)) for key in plan.filters_of("text")
        }
        return Rows(
            cut.n,
            cut.start,
            cut.stop,
            self.features(resident),
            y,
            feature_names=plan.names,
            weights=self._numbers[:, first - 1].copy() if plan.has_weights else None,
            categories=tuple(sorted(categories)),
            dates=tuple((place, place) for place in plan.dates),
            others=others,
            unlabelled=unlabelled,
            filters=filters,
            reach=reach,
            columns=plan.columns.names,
        )


@lru_cache
def routes(numeric, places):
    """Return where runs of successive columns of a Panel go.

    Parameters
    ----------
    numeric : tuple of int
        As in `Plan`.
    places : tuple of int
        As in `Panel`.

    Returns
    -------
    list of (bool, slice, slice)
        Whether they are features; the columns there, or among the other numbers; the
        columns of the Panel.
    """
    found, at, n = [], 0, len(numeric)
    to = [numeric[place] if place < n else place - n for place in places]
    for i in range(1, len(places) + 1):
        is_feature = places[at] < n
        goes_on = i < len(places) and to[i] == to[i - 1] + 1
        if not goes_on or is_feature != (places[i] < n):
            found.append((is_feature, slice(to[at], to[i - 1] + 1), slice(at, i)))
            at = i
    return found
