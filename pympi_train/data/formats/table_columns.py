"""Columns of a table in memory as the numbers that readers of files make of them."""

import numpy as np

from pympi_train.data.formats.rows import shown
from pympi_train.data.formats.spelling import category_of
from pympi_train.data.formats.text_column import days_of, is_missing
from pympi_train.errors import DataError


def as_numbers(values, place):
    """Return a column of numbers as it is, or float64 from objects.

    Raises
    ------
    DataError
        If a value is no number.
    """
    if values.dtype.kind in "biuf":
        return values
    try:
        if values.dtype.kind != "O":
            raise TypeError(f"got dtype {values.dtype}")
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{place}: expected numbers: {error}") from None


def as_dates(values, place):
    """Return a column of dates, datetime64 or text, as days since 1970; NaN for none.

    Raises
    ------
    DataError
        If a value is no date.
    """
    if values.dtype.kind == "M":
        return (values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    days = {}
    for row, value in enumerate(map(_text, values.tolist())):
        try:
            if value not in days:
                days[value] = np.nan if is_missing(value) else days_of(value)
        except ValueError:
            raise DataError(
                f"{place}, row {row}: expected a date or time of ISO 8601, found "
                f"{shown(value)}"
            ) from None
    return np.array([days[_text(value)] for value in values.tolist()])


def coded(values, encoding, place):
    """Return the code of each category of a column, by the Encoding of the training.

    Raises
    ------
    DataError
        If a category is unknown.
    """
    texts = [_text(value) for value in values.tolist()]
    distinct = list(dict.fromkeys(texts))
    names = ["" if is_missing(text) else category_of(text) for text in distinct]
    codes = encoding.codes_of(names)
    if (codes < 0).any():
        text = distinct[int(np.argmax(codes < 0))]
        raise DataError(
            f"{place}, row {texts.index(text)}: {shown(text)} is no category of the "
            "training rows"
        )
    code = dict(zip(distinct, codes.tolist()))
    return np.array([code[text] for text in texts], dtype=np.float64)


def _text(value):
    """Return a value of a table as the text that a .csv of it would have."""
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
