"""Reader of Parquet files: row groups, and only the columns that are asked for."""

import contextlib
import os
import threading
from bisect import bisect_right
from functools import lru_cache, partial
from itertools import accumulate, groupby
from typing import NamedTuple

from pympi_train.comm.checks import together
from pympi_train.data.formats.columns.arrow import ArrowPiece, typed_columns
from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.columns.plan import plan_columns
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.libraries import load_library
from pympi_train.data.formats.rows import RowRange, require_unique
from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError

BATCH_ROWS = 1 << 16  # decoded at once
KEPT_FOOTERS = 4  # 1 KB for each column of each row group
READ_BYTES = 1 << 26  # a larger row group is read page by page
KEPT_BYTES = 1 << 23  # a file with larger row groups does not stay open


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


class Block(NamedTuple):
    """Rows of one row group: from ``start`` up to ``stop`` in the file."""

    file: int
    group: int
    start: int
    stop: int


def read_parquet(
    paths,
    comm,
    selection,
    *,
    name,
    text_labels=None,
    dtype="float64",
    is_streamed=False,
    **_,
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
    footers = of_each(paths, read_footer, comm)
    n = sum(sum(footer.counts) for footer in footers)
    with together(comm):
        plan = plan_columns(paths[0], footers[0].names, selection)
        for path, footer in zip(paths, footers):
            if not sum(footer.counts):
                raise DataError(f"{path}: no rows")
        own = RowRange(n, *own_range(n, comm.rank, comm.size))
        table = ParquetFiles(paths, footers, plan, dtype)
    reach = None
    with together(comm):
        blocks = table.blocks(own.start, own.stop)
        streamed = partial(table.streamed, blocks) if is_streamed else None
        filling = Filling(plan, own.stop - own.start, dtype, streamed)
        table.read(blocks, filling)
        release_memory()
        if is_streamed and not plan.categories + plan.dates:
            reach = table.reach
    return filling.rows(own, comm, name, text_labels, reach)


class ParquetFiles:
    """Parquet files whose columns have the uses of a Plan.

    Parameters
    ----------
    paths : sequence of str
    footers : sequence of Footer
    plan : Plan
    dtype : dtype
        Of the features.
    """

    def __init__(self, paths, footers, plan, dtype):
        self._paths, self._footers, self._dtype = paths, footers, dtype
        self._features = plan.features_alone()
        self._starts = [0, *accumulate(sum(f.counts) for f in footers)]
        self._columns = {
            its: [
                its.columns.among(footer.names, path, paths[0])
                for footer, path in zip(footers, paths)
            ]
            for its in (plan, self._features)
        }
        self._known = lru_cache(KEPT_FOOTERS)(self._read_again)
        self._typed = lru_cache(2 * KEPT_FOOTERS)(self._find_types)
        self._of_thread = threading.local()

    def _read_again(self, i):
        """Return the metadata of a file."""
        path = self._paths[i]
        with parquet_errors(path), parquet_file(path) as file:
            metadata, names = file.metadata, tuple(file.schema_arrow.names)
        if Footer(names, group_rows(metadata)) != self._footers[i]:
            raise DataError(f"{path}: changed while it was being read")
        return metadata

    def _find_types(self, i, plan):
        """Return the TypedColumns of a file for a Plan."""
        types = self._known(i).schema.to_arrow_schema().types
        return typed_columns(self._columns[plan][i], types)

    def _opened(self, i):
        """Return a file, which stays open in this thread if its row groups are small.
        """
        if not hasattr(self._of_thread, "opened"):
            self._of_thread.opened = lru_cache(KEPT_FOOTERS)(self._open)
        size_bytes = self._group_bytes(i)
        is_small = size_bytes <= KEPT_BYTES  # a file keeps the bytes read last
        opened = self._of_thread.opened if is_small else self._open
        return opened(i, size_bytes <= READ_BYTES)

    def _open(self, i, pre_buffer):
        path = self._paths[i]
        with parquet_errors(path):
            return parquet_file(path, metadata=self._known(i), pre_buffer=pre_buffer)

    def _group_bytes(self, i):
        """Return the bytes of the largest row group of a file."""
        metadata = self._known(i)
        groups = range(metadata.num_row_groups)
        return max(metadata.row_group(group).total_byte_size for group in groups)

    def blocks(self, start, stop):
        """Return the Blocks of a range of rows of all files."""
        found = []
        first = max(0, bisect_right(self._starts, start) - 1)
        for i in range(first, len(self._paths)):
            at = self._starts[i]
            if at >= stop:
                break
            for group, count in enumerate(self._footers[i].counts):
                low, high = max(start, at), min(stop, at + count)
                if low < high:
                    before = self._starts[i]
                    found.append(Block(i, group, low - before, high - before))
                at += count
        return found

    def read(self, blocks, filling):
        """Add the rows of some Blocks to ``filling``."""
        for i, of_file in groupby(blocks, key=lambda block: block.file):
            file, typed = self._opened(i), self._typed(i, filling.plan)
            with parquet_errors(self._paths[i]):
                for block in of_file:
                    self._read_block(file, block, typed, filling)

    def _read_block(self, file, block, typed, filling):
        columns, path = typed.columns, os.fspath(self._paths[block.file])
        wanted = list(dict.fromkeys([*columns.numbers, *columns.texts]))
        names = [columns.names[i] for i in wanted]
        at = sum(self._footers[block.file].counts[: block.group])
        for batch in file.iter_batches(
            BATCH_ROWS, [block.group], columns=names, use_threads=False
        ):
            low, high = (min(max(row - at, 0), len(batch)) for row in block[2:])
            if low < high:
                part, place = batch.slice(low, high - low), (f"{path}, row ", at + low)
                filling.add_piece(ArrowPiece(part, typed, place, filling.dtype))
            at += len(batch)
        if at < block.stop:
            raise DataError(f"{path}: changed while it was being read")

    def _decode(self, block, out):
        """Store the features of a block in ``out``, without those read as text."""
        self.read([block], Filling(self._features, len(out), self._dtype, x=out))

    def reach(self, start, stop):
        """Return the features of any rows as StreamedRows."""
        return self.streamed(self.blocks(start, stop))

    def streamed(self, blocks, resident=None):
        """Return the features of some Blocks as StreamedRows."""
        counts = [block.stop - block.start for block in blocks]
        width = len(self._features.names)
        return StreamedRows(
            counts,
            lambda i, out: self._decode(blocks[i], out),
            width,
            self._dtype,
            resident,
            fills=True,
        )


def parquet_file(path, **how):
    """Return a ``pyarrow.parquet.ParquetFile``; by default it is read page by page."""
    parquet = load_library("pyarrow.parquet", f"{path}: reading Parquet")
    how.setdefault("pre_buffer", False)  # else all bytes of a row group are in memory
    return parquet.ParquetFile(path, **how)


def release_memory():
    """Give the memory of decoded columns back, which pyarrow keeps otherwise."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()


@contextlib.contextmanager
def parquet_errors(path):
    """Turn the errors of pyarrow and of the system into DataError."""
    pyarrow = load_library("pyarrow", f"{path}: reading Parquet")
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
    with parquet_errors(path), parquet_file(path) as file:
        names, counts = tuple(file.schema_arrow.names), group_rows(file.metadata)
    require_unique(path, names)
    return Footer(names, counts)


def group_rows(metadata):
    """Return the number of rows of each row group: tuple of int."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return tuple(group.num_rows for group in groups)
