"""This rank's rows of the arrays of several files, by what they are used for."""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.arrays.array_texts import (
    StoredPart,
    days_of_parts,
    labels_of_parts,
    text_of_parts,
)
from pympi_train.data.formats.arrays.stacked import StackedRows
from pympi_train.data.formats.arrays.stored import ABSENT
from pympi_train.data.formats.selection import TIME_AS_NUMBER
from pympi_train.data.formats.spelling import spelled_alike
from pympi_train.data.formats.text_column import why_no_category
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError

FEATURES = ("feature", "category", "date")  # uses of arrays of features


class OwnArrays:
    """This rank's rows of the arrays of all files.

    Parameters
    ----------
    tables, uses, lacking
        As for `rows_of_arrays`.
    blocks : ArrayBlocks, optional
        Features that are not kept.
    """

    def __init__(self, tables, uses, lacking, blocks=None):
        self._tables, self._uses, self._lacking = tables, uses, lacking
        self._blocks = blocks
        self.dates = ()  # (place, column) of each date among the features
        self._n_absent = 0  # chunks
        self._parts = [[] for _ in uses]  # of each array: a StoredPart of each file

    def of(self, items, *uses):
        """Return the items, one an array, of arrays with some of these uses."""
        return [item for item, use in zip(items, self._uses) if use in uses]

    def _may_lack(self, use):
        return self._lacking == "all" or (
            self._lacking == "features" and use in FEATURES
        )

    def read(self, starts, rows, shared):
        """Read the rows; numbers are checked."""
        self._rows = rows
        for i, (first, last) in own_files(starts, *rows):
            at = first - starts[i]
            for j, (array, use) in enumerate(zip(self._tables[i], self._uses)):
                if self._blocks is not None and use == "feature":
                    continue
                values = shared.get((i, j))
                if values is None:
                    values = array.fetch(at, last - starts[i])
                self._n_absent += array.count_absent(at, last - starts[i])
                if use in ("feature", "target", "weights"):
                    values = values[:, None] if values.ndim == 1 else values
                    require_finite(values, array.place, at, self._may_lack(use))
                else:
                    values = _one_column(array, values)
                self._parts[j].append(StoredPart(values, array.place, at))
        if self._blocks is not None:
            self._check_blocks()

    def _check_blocks(self):
        """Read the features that are not kept, to check them."""
        for block in self._blocks.ranges(*self._rows):
            at = block[1]
            for array, _, values in self._blocks.parts(block):
                require_finite(values, array.place, at, self._may_lack("feature"))
            self._n_absent += self._blocks.count_absent(block)

    def _stored(self, *uses):
        """Return the StoredArrays of the first file with some of these uses."""
        return self.of(self._tables[0], *uses)

    def targets(self, text_labels):
        """Return targets, None, or a LabelColumn; and the mask of absent labels."""
        labels = self.of(self._parts, "label")
        if not labels:
            return self.numbers("target"), None
        dtype, optional = self._stored("label")[0].dtype, self._may_lack("label")
        y = labels_of_parts(labels[0], dtype, text_labels, optional)
        absent = getattr(y, "absent", None)
        if optional and dtype.kind == "f":
            absent = np.concatenate([[], *(np.isnan(p.values) for p in labels[0])])
            absent = absent.astype(bool)
        return y, absent

    def numbers(self, use):
        """Return arrays of numbers side by side, float64, (k, t), or None."""
        x = self._joined(use)
        return None if x is None else x[:].astype(np.float64)

    def _joined(self, use):
        """Return arrays of one use side by side, or None if there are none."""
        parts = self.of(self._parts, use)
        if not parts:
            return None
        rows = [_side_by_side([part.values for part in file]) for file in zip(*parts)]
        return below(rows, [self.of(table, use) for table in self._tables])

    def features(self):
        """Return the features, and (place, column, TextColumn) of each of categories.

        Columns of categories are left empty.
        """
        arrays = self._stored(*FEATURES)
        k, x = self._rows[1] - self._rows[0], None
        if self._blocks is not None:
            x = self._blocks.rows(*self._rows)
        plain = self._joined("feature") if x is None else None
        if plain is not None and len(self._stored("feature")) == len(arrays):
            return plain, []
        if x is None:
            x = np.empty((k, sum(array.width for array in arrays)))
        texts, dates, column, taken = [], [], 0, 0
        for place, (array, use) in enumerate(zip(arrays, self._uses)):
            to = slice(column, column + array.width)
            if use == "category":
                found, where = text_of_parts(self._parts[place])
                if not self._may_lack(use):
                    found.require(why_no_category, where)
                texts.append((place, column, found))
                self._make_resident(x, column, k)
            elif use == "date":
                parts = self._parts[place]
                dates.append((place, column))
                self._make_resident(x, column, k)
                x[:, column] = days_of_parts(parts, self._may_lack(use))
            elif plain is not None:
                x[:, to] = plain[:, taken : taken + array.width]
                taken += array.width
            column = to.stop
        self.dates = tuple(dates)
        return x, texts

    def _make_resident(self, x, column, k):
        if self._blocks is not None:
            x.resident[column] = np.empty(k)

    def remarks(self, name, comm):
        """Return what the user should know of the files: tuple of str. Collective."""
        if not any(array.may_lack_chunks for array in self._tables[0]):
            return ()
        n_absent = int(reduced(comm, [self._n_absent])[0])
        if not n_absent:
            return ()
        return (
            f"{name}: {n_absent:,} {ABSENT}",
        )

    def others(self):
        """Return TextLabels of each array of other texts."""
        parts = self.of(self._parts, "other")
        return [spelled_alike(text_of_parts(part)[0]) for part in parts]

    def filters(self, kinds):
        """Return numbers or TextLabels by name; ``kinds`` are (name, kind)."""
        found = {}
        for (name, kind), parts in zip(kinds, self.of(self._parts, "filter")):
            is_number = bool(parts) and parts[0].values.dtype.kind in "biuf"
            if kind == "number" and parts and parts[0].values.dtype.kind == "M":
                raise DataError(f"{parts[0].place}: {TIME_AS_NUMBER}")
            if kind == "text" or not is_number:
                found[name] = spelled_alike(text_of_parts(parts)[0])
            else:
                values = [part.values.astype(np.float64) for part in parts]
                found[name] = np.concatenate([[], *values])
        return found


def own_files(starts, start, stop):
    """Yield the index of each file with rows in a range, and the range of these."""
    first = max(0, int(np.searchsorted(starts, start, side="right")) - 1)
    for i in range(first, len(starts) - 1):
        if starts[i] >= stop:
            return
        yield i, (max(start, starts[i]), min(stop, starts[i + 1]))


def below(parts, groups):
    """Return rows of several files as one array or StackedRows of one dtype.

    Parameters
    ----------
    parts : list of ndarray, shape (k_i, d)
        From some of the files, or none.
    groups : list of list of StoredArray
        The arrays that are side by side in each file.
    """
    dtype = np.result_type(*{array.dtype for group in groups for array in group})
    if not parts:
        return np.empty((0, sum(array.width for array in groups[0])), dtype)
    if len(parts) == 1 and parts[0].dtype == dtype:
        return parts[0]
    return StackedRows(parts, dtype)


def _side_by_side(parts):
    """Return arrays of rows as one array; a single one stays a view."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _one_column(array, values):
    if values.ndim == 2:
        if values.shape[1] != 1:
            raise DataError(
                f"{array.place}: expected one value a row, found shape {array.shape}; "
                "one-hot targets become labels by argmax(axis=1)"
            )
        values = values[:, 0]
    return values
