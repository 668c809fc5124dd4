"""Reader of .csv files: each rank finds and reads its own rows."""

import csv
import io

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import (
    Rows,
    as_names,
    choose_names,
    listed,
    shown,
)
from pympi_train.data.formats.text import csv_parse
from pympi_train.data.formats.text.csv_arrow import (
    LEAST_BYTES,
    load_arrow,
    parse_csv_arrow,
)
from pympi_train.data.formats.text.csv_parse import Columns
from pympi_train.data.formats.text.csv_scan import scan_csv, whole_rows
from pympi_train.data.formats.text.cuts import Body, cut_rows, require_read, span_pieces
from pympi_train.data.formats.text.lines import (
    CHUNK_BYTES,
    mark_bytes,
    opened,
    read_at,
)
from pympi_train.errors import DataError

MAX_HEADER_BYTES = 1 << 26


def read_csv(
    paths,
    comm,
    *,
    features,
    target,
    target_kind,
    need_target,
    name,
    header=None,
    any_names=False,
    text_labels=None,
    dtype="float64",
    chunk_bytes=CHUNK_BYTES,
    parse=None,
    **_,
):
    """Read .csv files (RFC 4180, UTF-8). Collective.

    Each rank reads about 1/P of the bytes twice: the first pass counts rows to find
    its cuts, the second parses them. The arguments of `read_rows` apply. In addition:

    Parameters
    ----------
    paths : sequence of str
        Files with the same columns, in any order.
    chunk_bytes : int
        Number of bytes read at once.
    parse : callable
        Function from bytes to numbers and labels, like `csv_parse.parse_csv`. By
        default pyarrow's parser for large shares, if it is installed.
    """
    wanted = features, target, target_kind, need_target, any_names

    def find_columns(path):
        size_bytes = file_size(path)
        names, start, n_lines = read_csv_header(path, size_bytes, header)
        return names, Body(path, start, size_bytes, n_lines)

    headers, bodies = zip(*of_each(paths, find_columns, comm))
    with together(comm):
        first = _chosen(paths[0], headers[0], header, *wanted)
        columns = [first.among(*at, paths[0]) for at in zip(headers, paths)]
    cut = cut_rows(bodies, comm, scan_csv, chunk_bytes)
    k, n_features = cut.stop - cut.start, len(first.features)
    parse = parse or _parser(sum(span.end - span.begin for span in cut.spans))
    with together(comm):
        x = np.empty((k, n_features), dtype=dtype)
        y = np.empty((k, len(first.targets)), dtype=np.float64)
        labels, at = LabelColumn(k), 0
        for span in cut.spans:
            for data, n_lines in span_pieces(span, whole_rows, chunk_bytes):
                numbers, texts = parse(
                    data, columns[span.file], f"{span.path}, line ", n_lines, x.dtype
                )
                rows = slice(at, at + len(numbers))
                x[rows], y[rows] = numbers[:, :n_features], numbers[:, n_features:]
                labels.put(at, texts)
                at += len(numbers)
            require_read(span, at)
    if first.label is not None:
        y = labels.agree(comm, name, text_labels, cut.start)
    elif y.shape[1] == 0:
        y = None
    names = tuple(first.names[i] for i in first.features)
    return Rows(cut.n, cut.start, cut.stop, x, y, feature_names=names)


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


def _chosen(path, names, header, features, target, target_kind, need_target, any_names):
    """Return the Columns of the first file."""
    if header is False and not need_target and len(names) == len(as_names(features)):
        # The target's column number is missing: the file has no target.
        return choose_columns(path, names, None, None, "number", False)
    return choose_columns(
        path, names, features, target, target_kind, need_target, any_names
    )


def choose_columns(
    path, names, features, target, target_kind, need_target, any_names=False
):
    """Return the Columns for the names that the user gave."""
    lone = names[0] if len(names) == 1 else ""
    if (";" in lone or "\t" in lone) and lone not in as_names(features):
        raise DataError(
            f"{path}: one column, {shown(lone)}; the separator must be a comma, not a "
            f"{'semicolon' if ';' in lone else 'tab'}"
        )
    chosen, targets = choose_names(
        path, "column", names, features, target, need_target, any_names
    )
    if chosen is None:
        given = as_names(target)
        chosen = [name for name in names if name not in given]
    if not chosen:
        raise DataError(f"{path}: no feature column beside the target")
    if target_kind == "label" and len(targets) > 1:
        raise DataError(
            f"{path}: expected one column of class labels, got {listed(targets)}"
        )
    label = names.index(targets.pop()) if targets and target_kind == "label" else None
    place = {name: i for i, name in enumerate(names)}
    return Columns(
        names=tuple(names),
        features=tuple(place[name] for name in chosen),
        targets=tuple(place[name] for name in targets),
        label=label,
    )


def read_csv_header(path, size_bytes, header=None, chunk_bytes=1 << 16):
    """Return ``(names, byte, n_lines)``: the columns, and where the rows begin.

    ``header`` is as for `read_rows`.

    Raises
    ------
    DataError
        If there is no header, two columns have the same name, or the header looks like
        a row.
    """
    start = mark_bytes(path, size_bytes)
    with opened(path) as file:
        n_bytes = min(size_bytes - start, chunk_bytes)
        while True:
            data = read_at(file, start, n_bytes)
            ends = scan_csv(data).row_ends(0)
            # The end of the bytes read so far may be in the middle of a line.
            if ends.size and (ends[0] < len(data) or start + n_bytes == size_bytes):
                break
            if start + n_bytes == size_bytes or n_bytes > MAX_HEADER_BYTES:
                raise DataError(
                    f"{path}: expected a header line with the names of the columns, "
                    "found none"
                )
            n_bytes = min(size_bytes - start, 4 * n_bytes)
    line = data[: ends[0]]
    names = _header_names(path, line)
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


def _header_names(path, header):
    try:
        text = io.StringIO(header.decode("utf-8"), newline="\n")
        with csv_parse.long_fields():
            records = list(csv.reader(text))
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
