"""Parsing of whole .csv rows into numbers and texts, with what is wrong with them."""

import contextlib
import csv
import io
import math
import re

import numpy as np

from pympi_train.data.formats.columns.plan import ENCODE, FILL
from pympi_train.data.formats.label_column import BOOLEANS
from pympi_train.data.formats.rows import shown
from pympi_train.data.formats.text.csv_fast import parse_csv_fast
from pympi_train.data.formats.text.csv_scan import scan_csv
from pympi_train.data.formats.text_column import is_missing
from pympi_train.errors import DataError

_NOT_FLOAT = "_\x1c\x1d\x1e\x1f"  # as_number and float() treat these differently


def parse_csv(data, columns, place, n_lines, dtype):
    """Return the numbers and texts of whole rows.

    Numbers have shape (m, n), float64, with NaN for missing values; texts are a list
    of m str for each column of text.

    Parameters
    ----------
    data : bytes
        Whole rows.
    columns : Columns
    place : str
        Text before the line number in messages.
    n_lines : int
        Number of line feeds before ``data`` in the file.
    dtype : dtype
        Numbers must be finite in it.

    Raises
    ------
    DataError
        With line and column, if a row and the header differ in length, or a field is
        missing, not a finite number, or not the text that is expected.
    """
    found = parse_csv_fast(data, columns, dtype)
    return (
        parse_csv_slow(data, columns, place, n_lines, dtype) if found is None else found
    )


def parse_csv_slow(data, columns, place, n_lines, dtype):
    """Return `parse_csv`'s result by the csv module, field by field."""
    text = _decode(data, place, n_lines)
    plain = text.isascii() and not any(mark in text for mark in _NOT_FLOAT)
    number = _plain_number if plain else as_number
    numeric, numbers, texts = columns.numbers, [], [[] for _ in columns.texts]
    try:
        with long_fields():
            for row in _records(text, columns.separator):
                if len(row) != len(columns.names):
                    raise ValueError
                numbers.append([_value(row[i], i, columns, number) for i in numeric])
                for found, i in zip(texts, columns.texts):
                    found.append(row[i])
        array = np.array(numbers, dtype=np.float64)
        array = array.reshape(len(numbers), len(columns.numbers))
        good = columns.are_good(array, dtype) and not any(
            columns.why_wrong(i, text)
            for i, found in enumerate(texts)
            for text in set(found)
        )
        if good and len(array) == scan_csv(data, columns.separator).row_ends(0).size:
            return array, texts
    except (ValueError, csv.Error):
        pass
    with long_fields():
        raise _explained(text, columns, place, n_lines, dtype)


def _value(text, i, columns, number):
    if columns.optional and i in columns.optional and is_missing(text):
        return math.nan
    return number(text)


def _plain_number(text):
    try:
        return float(text)
    except ValueError:
        return as_number(text)


def as_number(text):
    """Return a field as a float; raise ValueError if it is not a number.

    Accepts what NumPy's parser accepts. float() differs: it also reads 1_000 and digits
    of other scripts, and it does not treat four ASCII separators as blanks. True and
    False are 1 and 0.
    """
    text = text.strip()
    if "_" in text or not text.isascii():
        raise ValueError(text)
    try:
        return float(text)
    except ValueError:
        if text.casefold() in BOOLEANS:
            return float(BOOLEANS[text.casefold()])
        raise


def number_of(text):
    """Return ``text`` as a float, or None; True and False are not numbers here."""
    try:
        return None if text.strip().casefold() in BOOLEANS else as_number(text)
    except ValueError:
        return None


@contextlib.contextmanager
def long_fields():
    """Let the csv module read fields of any length; its limit is per process."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(text, separator):
    """Iterate over the rows as lists of str, without blank lines."""
    # newline="\n": a carriage return does not end a line, and is kept in quotes.
    return filter(None, _reader(text, separator))


def _reader(text, separator):
    lines = io.StringIO(text, newline="\n")
    return csv.reader(lines, delimiter=separator, strict=True)


def _decode(data, place, n_lines):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = n_lines + data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{place}{line}: expected UTF-8, found byte 0x{data[error.start]:02x}; "
            "save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = n_lines + text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{place}{line}: a NUL byte; expected text")
    return text


def _explained(text, columns, place, n_lines, dtype):
    """Return the DataError for the first problem in ``text``."""
    reader = _reader(text, columns.separator)
    line = n_lines + 1
    try:
        for row in reader:
            problem = _problem(row, columns, dtype) if row else None
            if problem:
                field, message = problem
                line += sum(before.count("\n") for before in row[:field])
                return DataError(f"{place}{line}{message}")
            line = n_lines + reader.line_num + 1
    except csv.Error as error:
        if "new-line" not in str(error):
            return DataError(f"{place}{n_lines + reader.line_num}: {error}")
    line = n_lines + text.count("\n", 0, _lone_return(text)) + 1
    return DataError(
        f"{place}{line}: a carriage return without a line feed; lines end with a line "
        "feed, with or without a carriage return before it"
    )


def _lone_return(text):
    """Return the position of the first unquoted carriage return that ends no line."""
    found = re.match(r'(?:[^\r"]|\r\n|"[^"]*")*', text)
    return found.end()


def _problem(row, columns, dtype):
    """Return ``(field, message)`` for the first wrong field of a row."""
    n_columns = len(columns.names)
    if len(row) != n_columns:
        return 0, f": expected {n_columns} fields as in the header, found {len(row)}"
    for i, text in enumerate(row):
        name = f", column {columns.names[i]!r} (number {i + 1})"
        if i in columns.texts:
            why = columns.why_wrong(columns.texts.index(i), text)
            if why:
                return i, f"{name}: {why}"
        if i in columns.numbers:
            if i in columns.optional and is_missing(text):
                continue
            try:
                value = as_number(text)
            except ValueError:
                tip = FILL if is_missing(text) else ENCODE
                return i, f"{name}: expected a number, found {shown(text)}; {tip}"
            if not math.isfinite(value):
                tip = f"; {FILL}" if math.isnan(value) else ""
                return i, f"{name}: expected a finite number, found {shown(text)}{tip}"
            if not abs(value) <= float(np.finfo(dtype).max):
                return i, f"{name}: too large for {np.dtype(dtype)}: {shown(text)}"
    return None
