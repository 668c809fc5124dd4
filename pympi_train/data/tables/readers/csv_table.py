""".csv and .tsv files as a table, parsed by pyarrow."""

import csv
import io
from functools import partial

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.libraries import load_library
from pympi_train.data.formats.rows import listed, shown
from pympi_train.data.formats.text.csv_arrow import NULLS
from pympi_train.data.formats.text.csv_header import read_csv_header
from pympi_train.data.formats.text.csv_parse import long_fields
from pympi_train.data.formats.text.csv_scan import scan_csv, whole_rows
from pympi_train.data.partition import own_range
from pympi_train.data.tables.readers.arrow_values import array_of_arrow
from pympi_train.data.tables.readers.text_index import TextIndex
from pympi_train.data.tables.readers.text_types import FALSE, TRUE, TypeFinder
from pympi_train.data.tables.source import Field, Table, choose_fields
from pympi_train.errors import DataError

SHOWN_LINES = 5  # of further wrong rows


def open_csv(files, comm, columns=None, header=None):
    """Return the Table of .csv or .tsv files. Collective.

    Each rank reads its part of the bytes to count the rows, and its rows to find the
    types.

    Parameters
    ----------
    files : Files
    comm : MPI.Comm
    columns : list of str, optional
    header : bool, optional
        As for `formats.read.read_rows`.
    """
    with together(comm):
        load_library("pyarrow.csv", f"{files.name}: reading .csv without training")
    delimiter = "\t" if files.format == "tsv" else ","

    def look(path):
        return read_csv_header(path, header, delimiter)

    found = of_each(files.paths, look, comm)
    names = found[0][0]
    with together(comm):
        for path, (others, _) in zip(files.paths, found):
            if sorted(others) != sorted(names):
                raise DataError(
                    f"{path}: the columns are {listed(others)}, unlike in "
                    f"{files.paths[0]}, {listed(names)}; the files of a table have the "
                    "same columns"
                )
    return CsvTable(files, comm, found, columns, delimiter)


class CsvTable(Table):
    """Rows of .csv or .tsv files; see `open_csv`."""

    def __init__(self, files, comm, found, columns, delimiter):
        scans = [partial(scan, separator=delimiter) for scan in (scan_csv, whole_rows)]
        self._headers, bodies = zip(*found)
        self._delimiter = delimiter
        self._index = index = TextIndex(bodies, comm, *scans)
        with together(comm):
            every = [Field(name, "text") for name in found[0][0]]
            chosen = choose_fields(files.paths[0], every, columns)
            names = [field.name for field in chosen]
            as_text = dict.fromkeys(names, "text")
            finder = TypeFinder(len(names))
            own = own_range(index.n, comm.rank, comm.size)
            for i, data, n_lines in index.read(*own):
                table = self._parse(data, files.paths[i], n_lines, i, as_text)
                finder.add([table.column(name) for name in names])
        fields, kinds, quoted = finder.agree(names, comm)
        super().__init__(files.name, files.paths, index.n, fields)
        self._kinds = dict(zip(names, kinds))
        self._quoted = {name for name, is_quoted in zip(names, quoted) if is_quoted}

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        left = stop - start
        for i, data, n_lines in self._index.read(start, stop):
            kinds = dict(self._kinds, **dict.fromkeys(self._quoted, "text"))
            table = self._parse(data, self.files[i], n_lines, i, kinds)
            left -= len(table)
            yield {field.name: self._values(table, field) for field in self.fields}
        if left:
            raise DataError(
                f"{self.name}: {-left} rows more or fewer than line feeds outside "
                "quotes: a carriage return alone ends a line, or the file changed"
            )

    def _values(self, table, field):
        column = table.column(field.name)
        if field.name in self._quoted:
            import pyarrow
            import pyarrow.compute as pc

            column = pc.if_else(pc.equal(column, ""), pyarrow.scalar(None), column)
            column = pc.utf8_trim(column, " \t")
            column = column.cast(_arrow_type(self._kinds[field.name]))
        return array_of_arrow(column, field)

    def _parse(self, data, place, n_lines, i, kinds):
        """Return whole rows as a table of pyarrow with columns of these kinds."""
        import pyarrow
        from pyarrow import csv as arrow

        names = self._headers[i]
        try:
            return arrow.read_csv(
                pyarrow.py_buffer(data),
                read_options=arrow.ReadOptions(
                    column_names=names, use_threads=False, block_size=len(data) + 1
                ),
                parse_options=arrow.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=b'"' in data
                ),
                convert_options=arrow.ConvertOptions(
                    include_columns=list(kinds),
                    column_types={n: _arrow_type(kind) for n, kind in kinds.items()},
                    null_values=NULLS,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    true_values=TRUE,
                    false_values=FALSE,
                ),
            )
        except pyarrow.ArrowInvalid as error:
            raise self._explained(data, place, n_lines, names, error) from None

    def _explained(self, data, place, n_lines, names, error):
        """Return the DataError for rows that pyarrow refuses."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as found:
            line = n_lines + data.count(b"\n", 0, found.start) + 1
            begin = data.rfind(b"\n", 0, found.start) + 1
            return DataError(
                f"{place}, line {line}: byte {found.start - begin + 1} of the line is "
                f"0x{data[found.start]:02x}, which is no UTF-8; save the file as UTF-8"
            )
        wrong = self._odd_rows(text, n_lines, len(names))
        if not wrong:
            return DataError(f"{place}, from line {n_lines + 1}: {error}")
        more = ""
        if len(wrong) > 1:
            lines = ", ".join(str(line) for line, _ in wrong[1 : 1 + SHOWN_LINES])
            n_more = len(wrong) - 1
            more = f"; {n_more} more within {len(data):,} bytes, in the lines {lines}"
            more += " ..." if n_more > SHOWN_LINES else ""
        return DataError(f"{place}, line {wrong[0][0]}: {wrong[0][1]}{more}")

    def _odd_rows(self, text, n_lines, n_fields):
        """Return (line, what is wrong) of each row that is not of ``n_fields``."""
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter)
        wrong, begin = [], n_lines + 1
        with long_fields():
            try:
                for row in reader:
                    if row and len(row) != n_fields:
                        found = shown(self._delimiter.join(row))
                        text = f"expected {n_fields} fields, found {len(row)}: {found}"
                        wrong.append((begin, text))
                    begin = n_lines + reader.line_num + 1
            except csv.Error as error:
                wrong.append((begin, str(error)))
        return wrong


def _arrow_type(kind):
    import pyarrow

    return {
        "text": pyarrow.string(),
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "datetime64[us]": pyarrow.timestamp("us"),
        "zoned": pyarrow.timestamp("us", "UTC"),
    }[kind]
