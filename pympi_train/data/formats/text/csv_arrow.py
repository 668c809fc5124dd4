"""Parsing of whole .csv rows by pyarrow, if it is installed."""

import numpy as np

from pympi_train.data.formats.text.csv_parse import all_finite, wrong_label

LEAST_BYTES = 1 << 23  # of a rank: parsed by NumPy while pyarrow would be imported


def load_arrow():
    """Return ``pyarrow.csv``, or None if it cannot be imported."""
    try:
        from pyarrow import csv
    except Exception:  # also one that is built for another NumPy
        return None
    return csv


def parse_csv_arrow(csv, data, columns, dtype):
    """Return the result of `parse_csv`, or None for unusual ``data``.

    Numbers are rounded correctly, as NumPy does: the bits are the same. Unusual are
    whatever pyarrow refuses, and what it takes otherwise than RFC 4180: a carriage
    return alone ends a row for it, and bytes that are no text are not looked at.

    Parameters
    ----------
    csv : module
        ``pyarrow.csv``.
    data, columns, dtype
        As for `parse_csv`.
    """
    import pyarrow

    data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
    if b"\r" in data or b"\0" in data or not _is_text(data):
        return None
    names = [str(i) for i in range(len(columns.names))]
    kinds = {names[i]: pyarrow.float64() for i in columns.numbers}
    if columns.label is not None:
        kinds[names[columns.label]] = pyarrow.string()
    try:
        table = csv.read_csv(
            pyarrow.py_buffer(data),
            read_options=csv.ReadOptions(
                column_names=names, use_threads=False, block_size=len(data) + 1
            ),
            parse_options=csv.ParseOptions(newlines_in_values=b'"' in data),
            convert_options=csv.ConvertOptions(
                include_columns=list(kinds),
                column_types=kinds,
                null_values=[],
                check_utf8=False,
            ),
        )
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError):
        return None
    numbers = np.empty((len(columns.numbers), len(table)))
    for row, i in zip(numbers, columns.numbers):
        row[...] = table.column(names[i]).to_numpy()
    label = columns.label
    texts = [] if label is None else table.column(names[label]).to_pylist()
    if not all_finite(numbers, dtype) or any(map(wrong_label, set(texts))):
        return None
    return numbers.T, texts


def _is_text(data):
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
