"""Columns of Arrow tables as numbers and texts."""

from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.columns.filling import Panel
from pympi_train.data.formats.columns.plan import ENCODE, FILL
from pympi_train.data.formats.text_column import Coded
from pympi_train.errors import DataError

PANEL_BYTES = 1 << 21  # of columns of one type, converted by one call
BLOCK_ROWS = 4096  # of other columns: rows of some tens of them fit into the cache


def column_kind(type_):
    """Return "number", "text" or "time" for an Arrow type, or None for all others."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return column_kind(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return "number"
    if types.is_date(type_) or types.is_timestamp(type_):
        return "time"
    is_text = types.is_string(type_) or types.is_large_string(type_)
    if is_text or types.is_string_view(type_) or types.is_null(type_):
        return "text"
    # Some programs store text without saying that it is.
    return "text" if types.is_binary(type_) or types.is_large_binary(type_) else None


class Alike(NamedTuple):
    """Columns of one type of numbers, which are converted together.

    Attributes
    ----------
    places : tuple of int
        Their places among ``Columns.numbers``.
    names : list of str
    is_floating : bool
    may_lack : ndarray of bool, shape (len(places),), or None
        Which of them may lack values; None: none may.
    """

    places: tuple
    names: list
    is_floating: bool
    may_lack: np.ndarray | None


class TypedColumns(NamedTuple):
    """Columns to read, with their types in one file.

    Attributes
    ----------
    columns : Columns
    kinds : list of str or None
        The `column_kind` of each column of the file.
    alike : list of Alike
    alone : tuple of int
        Places among ``columns.numbers`` of those that are converted one by one.
    """

    columns: object
    kinds: list
    alike: list
    alone: tuple


def typed_columns(columns, types):
    """Return the TypedColumns of a file whose columns have these Arrow types."""
    by_type = {}
    for place, i in enumerate(columns.numbers):
        by_type.setdefault(types[i], []).append(place)
    alike, alone = [], []
    for type_, places in by_type.items():
        if _becomes_tensor(type_):
            numbers = [columns.numbers[place] for place in places]
            names = [columns.names[i] for i in numbers]
            may_lack = np.array([i in columns.optional for i in numbers])
            may_lack = may_lack if may_lack.any() else None
            alike.append(Alike(tuple(places), names, _is_floating(type_), may_lack))
        else:
            alone += places
    return TypedColumns(columns, list(map(column_kind, types)), alike, tuple(alone))


def _is_floating(type_):
    from pyarrow import types

    return types.is_floating(type_)


def _becomes_tensor(type_):
    """Return whether columns of this type are converted together."""
    from pyarrow import types

    return has_tensors() and (_is_floating(type_) or types.is_integer(type_))


def has_tensors():
    """Return whether this pyarrow can convert several columns to rows at once."""
    import pyarrow

    return int(pyarrow.__version__.split(".")[0]) >= 17


class ArrowPiece:
    """Some rows of an Arrow table, for `Filling.add_piece`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    typed : TypedColumns
    place : (str, int)
        Text before the row number in messages, and the number of the first row.
    dtype : dtype
        Numbers must be finite in it.
    """

    def __init__(self, batch, typed, place, dtype):
        self._batch, self._typed = batch, typed
        self._columns, self._kinds = typed.columns, typed.kinds
        self._place, self._dtype = place, dtype

    def __len__(self):
        return len(self._batch)

    def _plain(self, i):
        """Return a column without a dictionary."""
        from pyarrow import types

        column = self._batch.column(self._columns.names[i])
        is_coded = types.is_dictionary(column.type)
        return column.dictionary_decode() if is_coded else column

    def _error(self, row, i, problem):
        text, first = self._place
        name = self._columns.names[i]
        return DataError(
            f"{text}{first + row} (from 0), column {name!r}: {problem}"
        )

    def numbers(self):
        """Yield Panels of all numbers, NaN where a column has no value.

        Columns of one type are converted by a few calls, which release the
        interpreter's lock. The error is that of the first column that has one.
        """
        try:
            for alike in self._typed.alike:
                yield from self._converted(alike)
            yield from self.numbers_by_column(self._typed.alone)
        except DataError:
            for _ in self.numbers_by_column(range(len(self._columns.numbers))):
                pass
            raise

    def _converted(self, alike):
        """Yield the Panels of columns of one type."""
        from pyarrow import ArrowTypeError

        part = self._batch.select(alike.names)
        row_bytes = len(alike.names) * part.schema.types[0].bit_width // 8
        step = max(1, PANEL_BYTES // row_bytes)
        for start in range(0, len(part), step):
            rows = part.slice(start, step)
            try:
                values = rows.to_tensor(alike.is_floating, row_major=True).to_numpy()
            except ArrowTypeError:  # integers are missing
                values = None
            if values is None or not self._are_good(values, alike.may_lack):
                yield from self.numbers_by_column(alike.places)
                return
            yield Panel(start, alike.places, values)

    def numbers_by_column(self, places):
        """Yield Panels of the numbers at some places, each converted alone."""
        found = [self._numbers(self._columns.numbers[place]) for place in places]
        for start in range(0, len(self._batch), BLOCK_ROWS):
            for place, values in zip(places, found):
                yield Panel(start, (place,), values[start : start + BLOCK_ROWS, None])

    def _largest(self, dtype):
        return min(np.finfo(dtype).max, np.finfo(self._dtype).max)

    def _are_good(self, values, may_lack):
        """Return whether values are finite, or NaN where they may be missing."""
        if values.dtype.kind != "f":
            return True
        good = np.abs(values) <= self._largest(values.dtype)  # not NaN
        if may_lack is not None and not good.all():
            good |= np.isnan(values) & may_lack
        return bool(good.all())

    def _numbers(self, i):
        column = self._plain(i)
        if self._kinds[i] != "number" and column.null_count < len(column):
            row = int(np.argmax(np.asarray(column.is_valid())))
            found = "a date or time" if self._kinds[i] == "time" else (
                f"type {column.type}"
            )
            tip = ENCODE if self._kinds[i] else "name the column in [data] drop"
            raise self._error(row, i, f"expected a number, found {found}; {tip}")
        values = as_array(column)
        if values.dtype.kind == "f":
            good = np.abs(values) <= self._largest(values.dtype)  # not NaN
            if not good.all():
                self._require_good(values, good, i)
        return values

    def _require_good(self, values, good, i):
        """Raise DataError at the first value that is neither good nor optional."""
        if i in self._columns.optional:
            good = good | np.isnan(values)
            if good.all():
                return
        row = int(np.argmin(good))
        value = values[row]
        if np.isnan(value):
            problem = f"expected a finite number, found no value or nan; {FILL}"
        elif np.isinf(value):
            problem = f"expected a finite number, found {value}"
        else:
            problem = f"too large for {np.dtype(self._dtype)}: {value}"
        raise self._error(row, i, problem)

    def texts(self):
        """Return a Coded for each column of text, or days for one of dates."""
        return [self._texts(j) for j in range(len(self._columns.texts))]

    def _texts(self, j):
        columns = self._columns
        i, kind = columns.texts[j], columns.kinds[j]
        column = self._plain(i)
        if self._kinds[i] is None:
            tip = f"expected text or numbers, found type {column.type}"
            raise self._error(0, i, f"{tip}; name the column in [data] drop")
        if kind == "date" and self._kinds[i] == "time":
            return self._days(column, i)
        if kind == "date" and self._kinds[i] == "number":
            problem = f"expected dates or text, found type {column.type}"
            raise self._error(0, i, problem)
        found = coded_texts(column)
        wrong = [columns.why_wrong(j, text) for text in [*found.distinct, ""]]
        if found.codes.min(initial=0) >= 0:
            wrong[-1] = None  # no row lacks a value
        if any(wrong):
            is_wrong = np.array([why is not None for why in wrong])[found.codes]
            row = int(np.argmax(is_wrong))
            raise self._error(row, i, wrong[found.codes[row]])
        return found

    def _days(self, column, i):
        days = as_days_since_1970(column)
        if i not in self._columns.optional and np.isnan(days).any():
            row = int(np.argmax(np.isnan(days)))
            raise self._error(row, i, f"expected a date, found no value; {FILL}")
        return days


def as_array(column):
    """Return a column of numbers as an array; float64 with NaN if values are absent."""
    from pyarrow import compute, types

    if types.is_boolean(column.type):
        column = column.cast("uint8")
    if types.is_null(column.type):
        return np.full(len(column), np.nan)
    if types.is_floating(column.type) or not column.null_count:
        return column.to_numpy(zero_copy_only=False)  # NaN for no value
    return compute.cast(column, "float64", safe=False).to_numpy(zero_copy_only=False)


def as_days_since_1970(column):
    """Return dates or times as days, float64; NaN for no value.

    Times without a zone are UTC.
    """
    import pyarrow

    is_date32 = pyarrow.types.is_date32(column.type)
    whole = column.cast("int32" if is_date32 else "int64")
    per_day = 1
    if not is_date32:
        unit = "ms" if pyarrow.types.is_date(column.type) else column.type.unit
        per_day = 86400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = np.asarray(whole.fill_null(0))
    # Whole days first: nanoseconds since 1970 need more digits than float64 has.
    days = values // per_day + (values % per_day) / per_day
    days[~np.asarray(whole.is_valid())] = np.nan
    return days


def coded_texts(column):
    """Return a column of any plain type as Coded texts, as a .csv would have them."""
    from pyarrow import types

    if types.is_binary(column.type) or types.is_large_binary(column.type):
        column = column.cast("large_string")  # raises unless it is UTF-8
    elif types.is_date(column.type) or types.is_timestamp(column.type):
        column = column.cast("string")
    elif types.is_null(column.type):
        return Coded([], np.full(len(column), -1))
    elif types.is_string_view(column.type):
        column = column.cast("large_string")
    is_float = types.is_floating(column.type)
    found = column.dictionary_encode()
    values = found.dictionary.to_pylist()
    if is_float:
        values = [repr(value).removesuffix(".0") for value in values]
    codes = np.asarray(found.indices.fill_null(-1)).astype(np.intp)
    return Coded(list(map(str, values)), codes)
