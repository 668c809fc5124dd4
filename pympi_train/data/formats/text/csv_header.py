"""First lines of .csv and .tsv files: names of the columns, and where rows begin."""

import csv
import io

from pympi_train.data.formats.rows import listed, require_unique
from pympi_train.data.formats.text.csv_parse import long_fields, number_of
from pympi_train.data.formats.text.csv_scan import scan_csv
from pympi_train.data.formats.text.cuts import Body
from pympi_train.data.formats.text.lines import (
    mark_bytes,
    opened,
    read_at,
    text_size,
)
from pympi_train.errors import DataError

MAX_HEADER_BYTES = 1 << 26


def read_csv_header(path, header=None, separator=",", chunk_bytes=1 << 16):
    """Return the names of the columns, and the Body with the rows.

    Parameters
    ----------
    path : str
    header : bool, optional
        As for `read_rows`.
    separator : {",", tab}
    chunk_bytes : int
        Number of bytes read first.

    Raises
    ------
    DataError
        If there is no header, two columns have the same name, or the header looks like
        a row.
    """
    size_bytes = text_size(path)
    start = mark_bytes(path, size_bytes)
    line = _first_row(path, start, size_bytes, separator, chunk_bytes)
    if line is None:
        raise DataError(
            f"{path}: expected a header line with the names of the columns, found none"
        )
    names = _header_names(path, line, separator)
    if header is False:
        return [str(i) for i in range(len(names))], Body(path, start, size_bytes)
    if header is None and looks_like_data(names):
        raise DataError(
            f"{path}: the first line looks like a row of numbers ({listed(names, 4)}), "
            "not like the names of columns; set [data] header = false (--no-header to "
            'evaluate, predict, or look at data), and the columns are called "0", "1" '
            "and so on; if these are names, header = true"
        )
    require_unique(path, names)
    return names, Body(path, start + len(line), size_bytes, line.count(b"\n"))


def _first_row(path, start, size_bytes, separator, chunk_bytes=1 << 16):
    """Return the bytes of the first row from byte ``start`` on, or None if it is none.
    """
    with opened(path) as file:
        n_bytes = min(size_bytes - start, chunk_bytes)
        while True:
            data = read_at(file, start, n_bytes)
            ends = scan_csv(data, separator).row_ends(0)
            # The end of the bytes read so far may be in the middle of a line.
            if ends.size and (ends[0] < len(data) or start + n_bytes == size_bytes):
                return data[: ends[0]]
            if start + n_bytes == size_bytes or n_bytes > MAX_HEADER_BYTES:
                return None
            n_bytes = min(size_bytes - start, 4 * n_bytes)


def looks_like_data(names):
    """Return whether a first line of a .csv looks like a row of numbers.

    It does if at least half of the fields are numbers, unless these count upwards
    (0, 1, 2) like the column numbers of an array.
    """
    numbers = [number_of(name) for name in names]
    numbers = [number for number in numbers if number is not None]
    if not numbers or 2 * len(numbers) < len(names):
        return False
    return any(after - before != 1 for before, after in zip(numbers, numbers[1:])) or (
        not numbers[0].is_integer()
    )


def _header_names(path, header, separator):
    try:
        text = io.StringIO(header.decode("utf-8"), newline="\n")
        with long_fields():
            records = list(csv.reader(text, delimiter=separator))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: the header is not UTF-8: {error}; save the file as UTF-8"
        ) from None
    except csv.Error as error:
        raise DataError(
            f"{path}: the header cannot be read: {error}; lines end with a line feed, "
            "with or without a carriage return before it"
        ) from None
    return [name.strip(" \t") for name in next(filter(None, records))]
