"""Parsing of whole .csv rows by pyarrow, if it is installed."""

import numpy as np

from pympi_train.data.formats.columns.arrow import has_tensors
from pympi_train.data.formats.text_column import MISSING

# Other spellings are left to the other parsers.
NULLS = sorted({f(w) for w in MISSING for f in (str, str.upper, str.title)} | {"NaN"})
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
    kinds |= {names[i]: pyarrow.string() for i in columns.texts}
    if {*columns.numbers} & {*columns.texts}:  # a column has one type here
        return None
    try:
        table = csv.read_csv(
            pyarrow.py_buffer(data),
            read_options=csv.ReadOptions(
                column_names=names, use_threads=False, block_size=len(data) + 1
            ),
            parse_options=csv.ParseOptions(
                delimiter=columns.separator, newlines_in_values=b'"' in data
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(kinds),
                column_types=kinds,
                null_values=NULLS if columns.optional else [],
                check_utf8=False,
            ),
        )
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError):
        return None
    numbers = _numbers(table, [names[i] for i in columns.numbers])
    texts = [table.column(names[i]).to_pylist() for i in columns.texts]
    are_good = columns.are_good(numbers, dtype) and not any(
        columns.why_wrong(i, text)
        for i, found in enumerate(texts)
        for text in set(found)
    )
    return (numbers, texts) if are_good else None


def _numbers(table, names):
    """Return columns of float64, shape (m, len(names)), NaN for a missing value."""
    if has_tensors() and names and len(table):
        (rows,) = table.select(names).combine_chunks().to_batches()
        return rows.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    numbers = np.empty((len(table), len(names)))
    for i, name in enumerate(names):
        numbers[:, i] = table.column(name).to_numpy()
    return numbers


def _is_text(data):
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
