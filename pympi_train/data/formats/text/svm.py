"""Reader of LIBSVM's sparse text, ``label index:value ...  # comment``."""

import numpy as np

from pympi_train.comm.checks import agreed_within, together
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import Rows
from pympi_train.data.formats.sparse.sparse_rows import csr_of_entries, dense_rows
from pympi_train.data.formats.text import svm_parse
from pympi_train.data.formats.text.cuts import (
    Body,
    cut_rows,
    require_read,
    span_pieces,
)
from pympi_train.data.formats.text.lines import (
    CHUNK_BYTES,
    line_ends,
    mark_bytes,
    text_size,
    whole_lines,
)
from pympi_train.data.formats.text.scans import Scan
from pympi_train.errors import DataError


def read_svm(
    paths,
    comm,
    selection,
    *,
    name,
    n_features=None,
    zero_based=None,
    text_labels=None,
    dtype="float64",
    sparse=False,
    chunk_bytes=CHUNK_BYTES,
    parse=svm_parse.parse_svm,
    **_,
):
    """Read .svm files into dense or sparse rows. Collective.

    The arguments of `read_rows` apply; the target is the first word of each line. In
    addition:

    Parameters
    ----------
    chunk_bytes : int
        Number of bytes read at once.
    parse : callable
        Function from bytes to entries: `svm_parse.parse_svm`, or its fast or slow
        variant.
    """
    with together(comm):
        selection.require_nameless(name, "an .svm")
        if selection.weights is not None and selection.need_weights:
            raise DataError(f"{name}: an .svm file has no weights; leave weights out")
    cut = cut_rows(of_each(paths, _body, comm), comm, scan_svm, chunk_bytes)
    with together(comm):
        parts, at = [], 0
        for span in cut.spans:
            for data, n_lines in span_pieces(span, whole_lines, chunk_bytes):
                parts.append(parse(data, span.path, n_lines, selection.need_target))
                at += len(parts[-1].counts)
            require_read(span, at)
        entries = svm_parse.joined(parts)

    def place(row):
        return f"{cut.path_of(row)}, line {entries.lines[row]}"

    n_columns, base = _agree_columns(comm, name, entries, n_features, zero_based)
    with together(comm):
        svm_parse.require_columns(entries, base, n_columns, place)
        x = _sparse(entries, base, n_columns, dtype, place)
        x = x if sparse else dense_rows(x, name, dtype)
    # Files for prediction may have no labels, or placeholders that are not labels.
    y = None
    if selection.need_target:
        kind = selection.target_kind
        y = _targets(comm, name, entries, kind, text_labels, cut.start, place)
    return Rows(cut.n, cut.start, cut.stop, x, y, zero_based=base == 0)


def _body(path):
    size_bytes = text_size(path)
    return Body(path, mark_bytes(path, size_bytes), size_bytes)


def scan_svm(data):
    """Return the Scan of whole lines; blank and comment-only lines are not rows."""
    ends = line_ends(data)
    starts = np.concatenate(([0], ends[:-1]))
    heads = np.frombuffer(data, dtype=np.uint8)[starts]
    full = np.ones(ends.size, dtype=bool)
    for i in np.flatnonzero((heads <= ord(" ")) | (heads == ord("#"))).tolist():
        full[i] = bool(data[starts[i] : ends[i]].partition(b"#")[0].strip())
    return Scan(ends[full], np.zeros(np.count_nonzero(full), dtype=np.intp))


def _agree_columns(comm, name, entries, n_features, zero_based):
    """Return the number of columns and the first column's index. Collective."""
    from mpi4py import MPI

    indices = entries.indices
    least, most = (indices.min(), indices.max()) if indices.size else (1, -1)
    extremes = np.array([-least, most], dtype=np.int64)
    comm.Allreduce(MPI.IN_PLACE, extremes, op=MPI.MAX)
    if zero_based is None:
        zero_based = bool(extremes[0] >= 0)
    base = 0 if zero_based else 1
    n_columns = int(extremes[1]) + 1 - base if n_features is None else n_features
    if n_columns < 1:
        text = f"{name}: no index:value in any line, so no features"
        raise agreed_within(comm, DataError(text))
    return n_columns, base


def _sparse(entries, base, n_columns, dtype, place):
    """Return the entries as a CSR, shape (k, n_columns)."""
    with np.errstate(over="ignore"):
        values = entries.values.astype(dtype)
    finite = np.isfinite(values)
    if not finite.all():
        i = int(np.argmin(finite))
        row = int(np.searchsorted(np.cumsum(entries.counts), i, side="right"))
        raise DataError(
            f"{place(row)}, index {entries.indices[i]}: too large for {values.dtype}: "
            f"{entries.values[i]}"
        )
    return csr_of_entries(entries.counts, entries.indices - base, values, n_columns)


def _targets(comm, name, entries, target_kind, text_labels, first_row, place):
    """Return labels, shape (k,), or numbers, shape (k, 1). Collective."""
    with together(comm):
        if target_kind == "number":
            return svm_parse.labels_as_numbers(entries, place)
        labels = LabelColumn(len(entries.labels))
        labels.put(0, entries.labels)
        labels.require_labels(place)
    return labels.agree(comm, name, text_labels, first_row)
