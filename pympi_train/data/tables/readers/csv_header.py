"""First lines of .csv and .tsv files: names of the columns, and where rows begin."""

import csv
import io

from pympi_train.data.formats.rows import listed
from pympi_train.data.formats.text.csv_file import first_row, looks_like_data
from pympi_train.data.formats.text.csv_parse import long_fields
from pympi_train.data.formats.text.cuts import Body
from pympi_train.data.formats.text.lines import mark_bytes, text_size
from pympi_train.data.tables.source import require_unique
from pympi_train.errors import DataError


def read_table_header(path, delimiter, header=None):
    """Return (names of the columns, Body).

    Parameters
    ----------
    path : str
    delimiter : {",", tab}
    header : bool, optional
        As for `formats.read.read_rows`.

    Raises
    ------
    DataError
        If there is no header, two columns have one name, or the header looks like a
        row.
    """
    size_bytes = text_size(path)
    start = mark_bytes(path, size_bytes)
    line, names = _first_row(path, delimiter, start, size_bytes)
    if header is False:
        return [str(i) for i in range(len(names))], Body(path, start, size_bytes)
    if header is None and looks_like_data(names):
        raise DataError(
            f"{path}: the first line looks like a row of numbers ({listed(names, 4)}), "
            "not like the names of columns; if it is a row, say --no-header (in Python "
            'header=False), and the columns are called "0", "1" and so on'
        )
    require_unique(path, names)
    n_lines = line.count(b"\n")
    return names, Body(path, start + len(line), size_bytes, n_lines)


def _first_row(path, delimiter, start, size_bytes):
    """Return the bytes of the first row, and its fields."""
    line = first_row(path, start, size_bytes, delimiter)
    if line is None:
        raise DataError(f"{path}: expected a first line of names, found none")
    if b"\r" in line.rstrip(b"\r\n") and b'"' not in line:
        raise DataError(
            f"{path}, line 1: a carriage return alone; lines end with a line feed, "
            "with or without a carriage return before it"
        )
    try:
        text = io.StringIO(line.decode("utf-8"), newline="")
        with long_fields():
            records = list(csv.reader(text, delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line 1: not UTF-8: {error}") from None
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}") from None
    return line, [name.strip(" \t") for name in next(filter(None, records))]
