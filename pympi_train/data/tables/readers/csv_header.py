"""First lines of .csv and .tsv files: names of the columns, and where rows begin."""

import csv
import io

from pympi_train.data.formats.rows import listed
from pympi_train.data.formats.text.csv_file import MAX_HEADER_BYTES, looks_like_data
from pympi_train.data.formats.text.csv_parse import long_fields
from pympi_train.data.formats.text.csv_scan import scan_csv
from pympi_train.data.formats.text.cuts import Body
from pympi_train.data.formats.text.lines import mark_bytes, opened, read_at, text_size
from pympi_train.data.tables.source import require_unique
from pympi_train.errors import DataError

FIRST_BYTES = 1 << 16


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
    n_bytes = min(FIRST_BYTES, size_bytes - start)
    with opened(path) as file:
        while True:
            data = read_at(file, start, n_bytes)
            ends = scan_csv(data, delimiter).row_ends(0)
            is_all = start + n_bytes == size_bytes
            # The end of the bytes read so far may be in the middle of a line.
            if ends.size and (ends[0] < len(data) or is_all):
                break
            if is_all or n_bytes > MAX_HEADER_BYTES:
                raise DataError(f"{path}: expected a first line of names, found none")
            n_bytes = min(size_bytes - start, 4 * n_bytes)
    line = data[: ends[0]]
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
