"""Reader of Parquet files: row groups, and only the columns that are asked for."""

import contextlib
import os
from itertools import accumulate
from typing import NamedTuple

from pympi_train.comm.checks import together
from pympi_train.data.formats.columns.arrow import ArrowPiece, column_kind
from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.columns.plan import plan_columns
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.rows import RowRange
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError

BATCH_ROWS = 1 << 16  # decoded at once


class Footer(NamedTuple):
    """What is known of a file before rows are read.

    Attributes
    ----------
    names : tuple of str
        Its columns.
    counts : tuple of int
        Rows of each row group.
    """

    names: tuple
    counts: tuple


def read_parquet(
    paths, comm, selection, *, name, text_labels=None, dtype="float64", **_
):
    """Read Parquet files. Collective.

    A rank decodes the columns that are asked for in each row group that holds some of
    its rows. The arguments of `read_rows` apply.

    Parameters
    ----------
    paths : sequence of str
        Files with the same columns, in any order.
    selection : Selection
    """
    with together(comm):
        load_parquet(paths[0])
    footers = of_each(paths, read_footer, comm)
    starts = [0, *accumulate(sum(footer.counts) for footer in footers)]
    with together(comm):
        plan = plan_columns(paths[0], footers[0].names, selection)
        columns = [
            plan.columns.among(footer.names, path, paths[0])
            for footer, path in zip(footers, paths)
        ]
        if not starts[-1]:
            raise DataError(f"{name}: no rows")
    own = RowRange(starts[-1], *own_range(starts[-1], comm.rank, comm.size))
    with together(comm):
        filling = Filling(plan, own.stop - own.start, dtype)
        for path, its_columns, start, footer in zip(paths, columns, starts, footers):
            rows = [min(max(at - start, 0), sum(footer.counts)) for at in own[1:]]
            if rows[0] < rows[1]:
                _read_file(filling, path, its_columns, footer, rows)
    return filling.rows(own, comm, name, text_labels)


def load_parquet(path):
    """Return ``pyarrow.parquet``; raise DataError if it cannot be imported."""
    try:
        from pyarrow import parquet
    except Exception as error:  # also one that is built for another NumPy
        raise DataError(
            f"{path}: pyarrow is needed to read Parquet, and cannot be imported "
            f"({error}): pip install 'pympi-train[data]'"
        ) from None
    return parquet


@contextlib.contextmanager
def _reading(path):
    """Turn the errors of pyarrow and of the system into DataError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        text = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise DataError(f"{path}: cannot be read as Parquet: {text}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: text that is not UTF-8: {error}") from None


def read_footer(path):
    """Return the Footer of a file."""
    file_size(path)  # raises if it is no file
    with _reading(path), load_parquet(path).ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
        meta = file.metadata
        counts = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    doubled = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if doubled is not None:
        raise DataError(f"{path}: two columns have the name {doubled!r}")
    return Footer(names, counts)


def _read_file(filling, path, columns, footer, rows):
    """Add the rows from ``rows[0]`` up to ``rows[1]`` of a file."""
    wanted = list(dict.fromkeys([*columns.numbers, *columns.texts]))
    names = [columns.names[i] for i in wanted]
    ends = list(accumulate(footer.counts))
    groups = [
        g
        for g, (count, end) in enumerate(zip(footer.counts, ends))
        if end - count < rows[1] and rows[0] < end and count
    ]
    at = ends[groups[0]] - footer.counts[groups[0]]
    with _reading(path), load_parquet(path).ParquetFile(path, pre_buffer=False) as file:
        if Footer(tuple(file.schema_arrow.names), footer.counts) != footer:
            raise DataError(f"{path}: changed while it was being read")
        kinds = {
            i: column_kind(file.schema_arrow.field(columns.names[i]).type)
            for i in wanted
        }
        batches = file.iter_batches(
            BATCH_ROWS, groups, columns=names, use_threads=False
        )
        for batch in batches:
            low, high = (min(max(row - at, 0), len(batch)) for row in rows)
            if low < high:
                part = batch.slice(low, high - low)
                place = f"{os.fspath(path)}, row ", at + low
                piece = ArrowPiece(part, columns, kinds, place, filling.x.dtype)
                filling.add_columns(len(part), piece.numbers(), piece.texts())
            at += len(batch)
    if at < rows[1]:
        raise DataError(f"{path}: changed while it was being read")
