"""Reader of .csv files: each rank finds and reads its own rows."""

from dataclasses import replace
from functools import partial

from pympi_train.comm.checks import together
from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.columns.plan import plan_columns
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.rows import as_names, shown
from pympi_train.data.formats.text import csv_parse
from pympi_train.data.formats.text.csv_arrow import (
    LEAST_BYTES,
    load_arrow,
    parse_csv_arrow,
)
from pympi_train.data.formats.text.csv_blocks import TextBlock, TextBlocks
from pympi_train.data.formats.text.csv_header import read_csv_header
from pympi_train.data.formats.text.csv_scan import scan_csv, whole_rows
from pympi_train.data.formats.text.cuts import cut_rows, require_read, span_pieces
from pympi_train.data.formats.text.lines import CHUNK_BYTES
from pympi_train.errors import DataError

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
        return read_csv_header(path, header, separator)

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
