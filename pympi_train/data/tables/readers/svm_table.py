"""LIBSVM files as a table: the column "label", and the dense column "x"."""

import math

import numpy as np

from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.label_column import as_integer
from pympi_train.data.formats.text.cuts import Body
from pympi_train.data.formats.text.lines import mark_bytes, text_size, whole_lines
from pympi_train.data.formats.text.svm import scan_svm
from pympi_train.data.formats.text.svm_parse import parse_svm
from pympi_train.data.partition import own_range
from pympi_train.data.tables.readers.text_index import TextIndex
from pympi_train.data.tables.source import Field, Table, choose_fields
from pympi_train.errors import DataError


def open_svm(files, comm, columns=None):
    """Return the Table of LIBSVM files. Collective.

    The indices start at 0 if a 0 occurs, else at 1; the width is the largest.
    """

    def look(path):
        size_bytes = text_size(path)
        return Body(path, mark_bytes(path, size_bytes), size_bytes)

    bodies = of_each(files.paths, look, comm)
    index = TextIndex(bodies, comm, scan_svm, whole_lines)
    with together(comm):
        # Largest index, minus the smallest, and whether a label is no integer, no
        # number, or missing.
        facts = [-1.0, -1.0, 0.0, 0.0, 0.0]
        for i, data, n_lines in index.read(*own_range(index.n, comm.rank, comm.size)):
            entries = parse_svm(data, files.paths[i], n_lines, need_target=False)
            if entries.indices.size:
                ends = entries.indices.max(), -entries.indices.min()
                facts[:2] = np.maximum(facts[:2], ends)
            for text in set(entries.labels):
                facts[2] = max(facts[2], text != "" and as_integer(text) is None)
                facts[3] = max(facts[3], text != "" and _number(text) is None)
                facts[4] = max(facts[4], text == "")
    facts = reduced(comm, facts, op="MAX").tolist()
    base = 0 if facts[1] == 0 else 1
    width = int(facts[0]) + 1 - base
    if width < 1:
        text = f"{files.name}: no index:value in any line"
        raise agreed_within(comm, DataError(text))
    kind = "text" if facts[3] else "float64" if facts[2] else "int64"
    label = Field("label", kind, nullable=kind == "int64" and bool(facts[4]))
    with together(comm):
        every = [label, Field("x", "float64", (width,))]
        fields = choose_fields(files.name, every, columns)
    return SvmTable(files, index, fields, base)


def _number(text):
    """Return the number that a label spells, or None."""
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class SvmTable(Table):
    """Rows of LIBSVM files; see `open_svm`."""

    def __init__(self, files, index, fields, base):
        self._index, self._base = index, base
        super().__init__(files.name, files.paths, index.n, fields)

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        for i, data, n_lines in self._index.read(start, stop):
            entries = parse_svm(data, self.files[i], n_lines, need_target=False)
            ends = np.concatenate(([0], np.cumsum(entries.counts)))
            for low in range(0, len(entries.labels), self.batch_rows):
                high = min(low + self.batch_rows, len(entries.labels))
                yield {
                    field.name: (
                        _labels(entries.labels[low:high], field)
                        if field.name == "label"
                        else self._dense(entries, ends[low : high + 1], field.width)
                    )
                    for field in self.fields
                }

    def _dense(self, entries, ends, width):
        x = np.zeros((len(ends) - 1, width))
        some = slice(ends[0], ends[-1])
        rows = np.repeat(np.arange(len(x)), np.diff(ends))
        x[rows, entries.indices[some] - self._base] = entries.values[some]
        return x


def _labels(texts, field):
    if field.is_text:
        return np.array([text or None for text in texts], dtype=object)
    if field.type == "float64":
        return np.array([_number(text) if text else math.nan for text in texts])
    numbers = [as_integer(text) if text else 0 for text in texts]
    values = np.array(numbers, dtype=np.int64)
    if not field.nullable:
        return values
    return np.ma.MaskedArray(values, [text == "" for text in texts])
