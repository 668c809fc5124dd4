"""Reader of .csv files: each rank finds and reads its own rows."""

import csv
import io
from dataclasses import replace
from functools import partial

from pympi_train.comm.checks import together
from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.columns.plan import plan_columns
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.rows import as_names, listed, shown
from pympi_train.data.formats.text import csv_parse
from pympi_train.data.formats.text.csv_arrow import (
    LEAST_BYTES,
    load_arrow,
    parse_csv_arrow,
)
from pympi_train.data.formats.text.csv_blocks import (
    TextBlock,
    TextBlocks,
    require_seekable,
)
from pympi_train.data.formats.text.csv_scan import scan_csv, whole_rows
from pympi_train.data.formats.text.cuts import Body, cut_rows, require_read, span_pieces
from pympi_train.data.formats.text.lines import (
    CHUNK_BYTES,
    mark_bytes,
    opened,
    read_at,
    text_size,
)
from pympi_train.errors import DataError

MAX_HEADER_BYTES = 1 << 26
SEPARATORS = {";": "semicolon", "\t": "tab", ",": "comma"}


def read_csv(
    paths,
    comm,
    selection,
    *,
    name,
    header=None,
    text_labels=None,
    dtype="float64",
    separator=",",
    is_streamed=False,
    chunk_bytes=CHUNK_BYTES,
    parse=None,
    **_,
):
    """Read .csv or .tsv files (RFC 4180, UTF-8). Collective.

    Each rank reads about 1/P of the bytes twice: the first pass counts rows to find
    its cuts, the second parses them. The arguments of `read_rows` apply. In addition:

    Parameters
    ----------
    paths : sequence of str
        Files with the same columns, in any order.
    selection : Selection
    separator : str
        A comma, or a tab for .tsv.
    chunk_bytes : int
        Number of bytes read at once.
    parse : callable
        Function from bytes to numbers and texts, like `csv_parse.parse_csv`. By
        default pyarrow's parser for large shares, if it is installed.
    """

    def find_columns(path):
        size_bytes = text_size(path)
        names, start, n_lines = read_csv_header(path, size_bytes, header, separator)
        return names, Body(path, start, size_bytes, n_lines)

    headers, bodies = zip(*of_each(paths, find_columns, comm))
    with together(comm):
        if header is False:
            selection = _without_target(selection, headers[0])
        _require_separated(paths[0], headers[0], selection, separator)
        plan = plan_columns(paths[0], headers[0], selection, separator)
        columns = [plan.columns.among(*at, paths[0]) for at in zip(headers, paths)]
    scan, whole = (partial(f, separator=separator) for f in (scan_csv, whole_rows))
    cut = cut_rows(bodies, comm, scan, chunk_bytes)
    parse = parse or _parser(sum(span.end - span.begin for span in cut.spans))
    with together(comm):
        if is_streamed:
            require_seekable(paths)
        again = TextBlocks(plan.features_alone(), parse, dtype)
        streamed = again.streamed if is_streamed else None
        filling = Filling(plan, cut.stop - cut.start, dtype, streamed)
        for span in cut.spans:
            at, before = span.begin, filling.n
            for data, n_lines in span_pieces(span, whole, chunk_bytes):
                place = f"{span.path}, line "
                filling.add(*parse(data, columns[span.file], place, n_lines, dtype))
                if is_streamed:
                    where = TextBlock(span.path, at, len(data), n_lines)
                    again.add(where, headers[span.file], filling.n - before)
                at, before = at + len(data), filling.n
            require_read(span, filling.n)
    return filling.rows(cut, comm, name, text_labels)


def _parser(n_bytes):
    """Return the function that parses ``n_bytes`` in the shortest time."""
    arrow = load_arrow() if n_bytes >= LEAST_BYTES else None
    if arrow is None:
        return csv_parse.parse_csv

    def parse(data, columns, place, n_lines, dtype):
        found = parse_csv_arrow(arrow, data, columns, dtype)
        if found is None:
            found = csv_parse.parse_csv(data, columns, place, n_lines, dtype)
        return found

    return parse


def _require_separated(path, names, selection, separator):
    """Raise DataError if the header looks as if its separator were another one."""
    lone = names[0] if len(names) == 1 else ""
    found = next((mark for mark in SEPARATORS if mark in lone), None)
    if found is not None and lone != selection.features:
        other = "; set [data] format" if found in ",\t" else ""
        raise DataError(
            f"{path}: one column, {shown(lone)}; the separator must be a "
            f"{SEPARATORS[separator]}, not a {SEPARATORS[found]}{other}"
        )


def _without_target(selection, names):
    """Return the selection for a file without names, which may lack the target.

    For prediction, a file of as many columns as there are features has no target: the
    target's number is then that of a feature.
    """
    if selection.need_target or len(names) != len(as_names(selection.features)):
        return selection
    return replace(selection, features=None, target=None, weights=None)


def read_csv_header(
    path, size_bytes, header=None, separator=",", chunk_bytes=1 << 16
):
    """Return ``(names, byte, n_lines)``: the columns, and where the rows begin.

    ``header`` is as for `read_rows`.

    Raises
    ------
    DataError
        If there is no header, two columns have the same name, or the header looks like
        a row.
    """
    start = mark_bytes(path, size_bytes)
    line = first_row(path, start, size_bytes, separator, chunk_bytes)
    if line is None:
        raise DataError(
            f"{path}: expected a header line with the names of the columns, found none"
        )
    names = _header_names(path, line, separator)
    if header is False:
        return [str(i) for i in range(len(names))], start, 0
    if header is None and looks_like_data(names):
        raise DataError(
            f"{path}: the first line looks like a row of numbers ({listed(names, 4)}), "
            "not like the names of columns; set [data] header = false (--no-header to "
            'evaluate or predict), and the columns are called "0", "1" and so on; if '
            "these are names, header = true"
        )
    if len(set(names)) < len(names):
        name = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{path}: column {name!r} comes twice in the header")
    return names, start + len(line), line.count(b"\n")


def first_row(path, start, size_bytes, separator, chunk_bytes=1 << 16):
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
    numbers = [csv_parse.number_of(name) for name in names]
    numbers = [number for number in numbers if number is not None]
    if not numbers or 2 * len(numbers) < len(names):
        return False
    return any(after - before != 1 for before, after in zip(numbers, numbers[1:])) or (
        not numbers[0].is_integer()
    )


def _header_names(path, header, separator):
    try:
        text = io.StringIO(header.decode("utf-8"), newline="\n")
        with csv_parse.long_fields():
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
