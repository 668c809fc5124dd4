"""Parquet files as a table, read by row groups."""

from itertools import accumulate

from pympi_train.comm.checks import together
from pympi_train.data.formats.columns.parquet import (
    group_rows,
    parquet_errors,
    parquet_file,
)
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.rows import require_unique
from pympi_train.data.tables.readers.arrow_values import array_of_arrow, arrow_field
from pympi_train.data.tables.source import (
    Field,
    Table,
    choose_fields,
    require_filled,
)
from pympi_train.errors import DataError

# Of buffers. 769 columns of float32 in one row group of 100,000 rows, without
# dictionaries, were read in 253 MB instead of 526 MB without ALL_BYTES (2026-11-29).
COLUMN_BYTES, LEAST_BYTES, ALL_BYTES = 1 << 20, 1 << 16, 1 << 26


def open_parquet(files, comm, columns=None):
    """Return the Table of Parquet files. Collective.

    Each footer is read by one rank.
    """
    footers = of_each(files.paths, lambda path: _footer(path, columns), comm)
    with together(comm):
        fields = _common_fields(files.paths, [fields for fields, _ in footers])
    return ParquetTable(files, fields, [counts for _, counts in footers])


def _footer(path, columns):
    """Return the Fields of a file, and the rows of each row group."""
    file_size(path)  # raises if it is no file
    with parquet_errors(path), parquet_file(path) as file:
        schema, counts = file.schema_arrow, group_rows(file.metadata)
        gaps = _columns_with_gaps(file.metadata)
    require_filled(path, sum(counts))
    require_unique(path, schema.names)
    names = [Field(name, "text") for name in schema.names]
    chosen = [field.name for field in choose_fields(path, names, columns)]
    fields = [
        arrow_field(path, name, schema.field(name).type, gaps.get(name, True))
        for name in chosen
    ]
    return fields, counts


def _columns_with_gaps(metadata):
    """Return {name: whether values may be missing}, by the footer's statistics."""
    gaps: dict = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for i in range(group.num_columns):
            column = group.column(i)
            known = column.statistics
            is_full = known is not None and known.has_null_count
            has = not is_full or known.null_count > 0
            gaps[column.path_in_schema] = gaps.get(column.path_in_schema, False) or has
    return gaps


def _common_fields(paths, found):
    """Return the Fields of all files; raise DataError if types differ."""
    first = {field.name: field for field in found[0]}
    for path, fields in zip(paths, found):
        others = {field.name: field for field in fields}
        for name in sorted(first.keys() ^ others.keys()):
            there, absent = (paths[0], path) if name in first else (path, paths[0])
            raise DataError(f"{absent}: no column {name!r}, which {there} has")
        for name, field in first.items():
            if others[name].type != field.type:
                raise DataError(
                    f"{path}: column {name!r} is {others[name].type}, but {field.type} "
                    f"in {paths[0]}; the files of a table have the same types"
                )
            if others[name].nullable and not field.nullable:
                first[name] = others[name]
    return [first[field.name] for field in found[0]]


def buffer_bytes(n_columns):
    """Return the bytes of a column that are read at once.

    Without buffers, the bytes of a whole row group would be in memory before its first
    rows. What is decompressed, a page and the dictionary of each column, comes on top.

    Examples
    --------
    >>> buffer_bytes(4), buffer_bytes(769)
    (1048576, 87267)
    """
    return min(COLUMN_BYTES, max(LEAST_BYTES, ALL_BYTES // n_columns))


class ParquetTable(Table):
    """Rows of Parquet files; see `open_parquet`."""

    def __init__(self, files, fields, counts):
        self._groups = [
            (i, group, n) for i, ns in enumerate(counts) for group, n in enumerate(ns)
        ]
        self._starts = [0, *accumulate(n for _, _, n in self._groups)]
        super().__init__(files.name, files.paths, self._starts[-1], fields)

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        for path, groups, first in self._wanted(start, stop):
            at = first
            for batch in self._batches(path, groups):
                low = max(start - at, 0)
                high = min(stop - at, len(batch))
                at += len(batch)
                if low < high:
                    part = batch.slice(low, high - low)
                    yield {f.name: self._values(path, part, f) for f in self.fields}
                if at >= stop:
                    break

    def _wanted(self, start, stop):
        """Yield (path, row groups, first row) of each file that has some rows."""
        wanted: dict = {}
        for (i, group, n), first in zip(self._groups, self._starts):
            if n and first < stop and first + n > start:
                wanted.setdefault(i, ([], first))[0].append(group)
        for i, (groups, first) in wanted.items():
            yield self.files[i], groups, first

    def _batches(self, path, groups):
        how = {"buffer_size": buffer_bytes(len(self.names))}
        with parquet_errors(path), parquet_file(path, **how) as file:
            yield from file.iter_batches(
                self.batch_rows, groups, list(self.names), use_threads=False
            )

    def _values(self, path, batch, field):
        column = batch.column(batch.schema.get_field_index(field.name))
        try:
            return array_of_arrow(column, field)
        except DataError as error:
            raise DataError(f"{path}, {error}") from None
