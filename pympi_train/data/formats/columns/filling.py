"""This rank's rows of a table, filled piece by piece."""

import numpy as np

from pympi_train.data.formats.categories import agree_categories
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import Categories, Rows
from pympi_train.data.formats.spelling import spelled_alike
from pympi_train.data.formats.text_column import DayColumn, TextColumn

BLOCK_ROWS = 4096  # rows of some tens of columns fit into the second-level cache
_COLUMNS = {"label": LabelColumn, "date": DayColumn}  # TextColumn for other kinds


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

    Attributes
    ----------
    n : int
        Rows so far.
    """

    def __init__(self, plan, k, dtype, streamed=None):
        self._plan, self._streamed, self.dtype = plan, streamed, np.dtype(dtype)
        self.n = 0
        n_kept = k if streamed is None else 0
        self._x = np.empty((n_kept, len(plan.names)), dtype=dtype)
        self._numbers = np.empty((k, len(plan.columns.numbers) - len(plan.numeric)))
        self._texts = [_COLUMNS.get(kind, TextColumn)(k) for kind in plan.columns.kinds]

    def add(self, numbers, texts):
        """Add the next rows, as `parse_csv` returns them."""
        rows = slice(self.n, self.n + len(numbers))
        n_numeric = len(self._plan.numeric)
        if self._streamed is None:
            all_ = n_numeric == len(self._plan.names)
            columns = slice(None) if all_ else list(self._plan.numeric)
            self._x[rows, columns] = numbers[:, :n_numeric]
        self._numbers[rows] = numbers[:, n_numeric:]
        self._add_texts(texts)
        self.n = rows.stop

    def add_columns(self, n_rows, numbers, texts):
        """Add the next ``n_rows`` rows, whose numbers are an array for each column.

        They are written to the rows in blocks that stay in the cache.
        """
        at, numeric, is_kept = self.n, self._plan.numeric, self._streamed is None
        for start in range(0, n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n_rows)
            x = self._x[at + start : at + stop]
            others = self._numbers[at + start : at + stop]
            for i, column in enumerate(numbers):
                part = column[start:stop]
                if i >= len(numeric):
                    others[:, i - len(numeric)] = part
                elif is_kept:
                    x[:, numeric[i]] = part
        self._add_texts(texts)
        self.n += n_rows

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
        plan, texts = self._plan, list(self._texts)
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
