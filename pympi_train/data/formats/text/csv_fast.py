"""Parsing of plain .csv rows by NumPy."""

import functools
import re

import numpy as np

from pympi_train.data.formats.text.csv_scan import LINE_FEED, QUOTE, RETURN
from pympi_train.data.formats.text_column import MISSING

_NO_VALUE = "|".join(re.escape(word) for word in sorted(MISSING, key=len)[::-1])


def parse_csv_fast(data, columns, dtype):
    """Return `parse_csv`'s result by NumPy's C parser, or None for unusual ``data``.

    Unusual are quotes that are needed, and all errors; the slow parser explains them.
    """
    if b'"' in data:
        data = _without_quotes(data, columns.separator)
    if b'"' in data or b"\0" in data:
        return None
    data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
    if b"\r" in data:
        return None
    if data.startswith(b"\n") or b"\n\n" in data:
        data = b"\n".join(filter(None, data.split(b"\n")))
    if not data:
        return None
    data = data if data.endswith(b"\n") else data + b"\n"
    separators = _separators(data, columns)
    if separators is None:
        return None
    texts = [_texts(data, separators, columns, i) for i in range(len(columns.texts))]
    if any(found is None for found in texts):
        return None
    numbers = _loaded(data, columns)
    if numbers is None and columns.optional:
        data = _field(_NO_VALUE, columns.separator).sub(b"nan", data)
        numbers = _loaded(data, columns)
    if numbers is None:  # only now look for True and False: rare, and slow to find
        for word, number in ((("true", b"1"), ("false", b"0"))):
            data = _field(word, columns.separator).sub(number, data)
        numbers = _loaded(data, columns)
    good = numbers is not None and len(numbers) == len(separators)
    return (numbers, texts) if good and columns.are_good(numbers, dtype) else None


def _loaded(data, columns):
    """Return the numbers in plain rows, or None if a field is not a number."""
    everything = columns.numbers == tuple(range(len(columns.names)))
    if not columns.numbers:
        return np.empty((data.count(b"\n"), 0))
    try:
        return np.loadtxt(
            data.decode("utf-8").split("\n")[:-1],
            delimiter=columns.separator,
            comments=None,
            usecols=None if everything else columns.numbers,
            ndmin=2,
        )
    except ValueError:  # includes UnicodeDecodeError
        return None


@functools.lru_cache
def _field(pattern, separator):
    """Return a compiled pattern for a whole field, blanks around it and any case."""
    mark, blanks = re.escape(separator), "[ \\t]*" if separator != "\t" else " *"
    return re.compile(
        rf"(?:(?<=[{mark}\n])|\A){blanks}(?i:{pattern}){blanks}(?=[{mark}\n])".encode()
    )


def _without_quotes(data, separator):
    """Return ``data`` without quotes, or unchanged if a quote is needed.

    Many programs put every text in quotes. A quote is needed around a separator or
    another quote. ``""`` needs its quotes too: without them, a row of one empty field
    would be a blank line.
    """
    if b'""' in data:
        return data
    buffer = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(buffer == QUOTE)
    separates = np.isin(buffer, (ord(separator), LINE_FEED, RETURN))
    inside = np.searchsorted(quotes, np.flatnonzero(separates)) & 1
    return data if inside.any() else data.replace(b'"', b"")


def _separators(data, columns):
    """Return the position of each field's end, shape (m, n), or None.

    None means that some row has another number of fields.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    n_columns = len(columns.names)
    at = np.flatnonzero((buffer == ord(columns.separator)) | (buffer == LINE_FEED))
    if at.size % n_columns:
        return None
    at = at.reshape(-1, n_columns)
    regular = (buffer[at[:, -1]] == LINE_FEED).all() and data.count(b"\n") == len(at)
    return at if regular else None


def _texts(data, separators, columns, i):
    """Return the i-th column of text as list of str, or None if one is wrong."""
    column = columns.texts[i]
    stops = separators[:, column]
    if column:
        starts = separators[:, column - 1] + 1
    else:
        starts = np.concatenate(([0], separators[:-1, -1] + 1))
    raw = [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist())]
    try:
        decoded = {label: label.decode("utf-8") for label in set(raw)}
    except UnicodeDecodeError:
        return None
    if any(columns.why_wrong(i, text) for text in decoded.values()):
        return None
    return [decoded[label] for label in raw]
