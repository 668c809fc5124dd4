"""Columns of Arrow tables as numbers and texts."""

import numpy as np

from pympi_train.data.formats.columns.plan import ENCODE, FILL
from pympi_train.data.formats.text_column import Coded
from pympi_train.errors import DataError


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


class ArrowPiece:
    """Some rows of an Arrow table, for `Filling.add_columns`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    columns : Columns
    kinds : dict of int to str or None
        The `column_kind` of each column that is read.
    place : (str, int)
        Text before the row number in messages, and the number of the first row.
    dtype : dtype
        Numbers must be finite in it.
    """

    def __init__(self, batch, columns, kinds, place, dtype):
        self._batch, self._columns, self._kinds = batch, columns, kinds
        self._place, self._dtype = place, dtype

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
        """Return each column of numbers, NaN where it has no value."""
        return [self._numbers(i) for i in self._columns.numbers]

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
            largest = min(np.finfo(values.dtype).max, np.finfo(self._dtype).max)
            good = np.abs(values) <= largest  # NaN fails the comparison
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
