"""Parts of text files that are parsed again when their rows are needed."""

from typing import NamedTuple

from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.data.formats.text.lines import opened, read_at
from pympi_train.errors import DataError


class TextBlock(NamedTuple):
    """Whole rows of a file: a range of bytes, and the line feeds before it."""

    path: str
    begin: int
    n_bytes: int
    n_lines: int


class TextBlocks:
    """The blocks of a rank's rows, which decode to features.

    Parameters
    ----------
    plan : Plan
        Of the features that are numbers, and no more.
    parse : callable
        Like `csv_parse.parse_csv`.
    dtype : dtype
    """

    def __init__(self, plan, parse, dtype):
        self._plan, self._parse, self._dtype = plan, parse, dtype
        self._blocks, self._counts, self._columns = [], [], {}

    def add(self, block, header, n_rows):
        """Add the next block of ``n_rows`` rows; ``header`` has its file's columns."""
        self._blocks.append(block)
        self._counts.append(n_rows)
        if block.path not in self._columns:
            columns = self._plan.columns.among(header, block.path, block.path)
            self._columns[block.path] = columns

    def streamed(self, resident):
        """Return the features as StreamedRows."""
        width = len(self._plan.names)
        made_of = self._counts, self._decode, width, self._dtype, resident
        return StreamedRows(*made_of, fills=True)

    def _decode(self, i, out):
        path, begin, n_bytes, n_lines = self._blocks[i]
        with opened(path) as file:
            data = read_at(file, begin, n_bytes)
        columns, place = self._columns[path], f"{path}, line "
        numbers, _ = self._parse(data, columns, place, n_lines, self._dtype)
        if len(numbers) != self._counts[i]:
            raise DataError(f"{path}: changed while it was being read")
        Filling(self._plan, len(out), self._dtype, x=out).add(numbers, ())
