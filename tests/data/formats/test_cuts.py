"""Byte ranges of every number of ranks find the same rows as the csv module."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pympi_train.data.formats.text import csv_scan, svm
from pympi_train.data.formats.text.cuts import (
    Body,
    Cut,
    Span,
    cut_rows,
    span_pieces,
)
from pympi_train.data.formats.text.lines import (
    line_start,
    row_pieces,
    whole_lines,
)
from pympi_train.data.formats.text.scans import (
    NONE,
    chain,
    find_cuts,
    scan_range,
)
from pympi_train.data.partition import bounds, own_range
from pympi_train.errors import DataError


def cut_all(data, size, scan, chunk_bytes):
    """What cut_rows does on each of ``size`` ranks, one after the other."""
    file = io.BytesIO(data)
    shares = bounds(len(data), size)
    starts = [line_start(file, share, 0, len(data)) for share in shares]
    ranges = list(zip(starts, starts[1:]))
    assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]]
    scanned = [scan_range(file, *span, scan, chunk_bytes) for span in ranges]
    before, wrong, open_quote = chain([summary for _, summary in scanned])
    rows = bounds(before[-1].n_rows, size)
    cuts = {0: (0, 0)}
    for (pieces, _), here in zip(scanned, before):
        found = find_cuts(file, pieces, here, set(rows), scan)
        assert not cuts.keys() & found.keys()  # each cut is found by one rank
        cuts.update(found)
    if wrong == open_quote == NONE:
        assert all(data.count(b"\n", 0, byte) == line for byte, line in cuts.values())
    return before[-1].n_rows, [cuts[row][0] for row in rows], wrong, open_quote


def csv_rows(data):
    text = io.StringIO(data.decode(), newline="\n")
    return [row for row in csv.reader(text, strict=True) if row]


@st.composite
def tables(draw):
    """The bytes of some rows, written by the csv module in one of its ways."""
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    # Before Python 3.13, QUOTE_MINIMAL left a lone carriage return without quotes.
    returns = "\r" if quoting == csv.QUOTE_ALL else ""
    field = st.text(alphabet='ab1 ,"\né' + returns, max_size=5)
    width = draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(field, min_size=width, max_size=width), max_size=9))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    out = io.StringIO()
    for row in rows:
        csv.writer(out, quoting=quoting, lineterminator=end).writerow(row)
        out.write(draw(st.sampled_from(["", "", end, 2 * end])))  # blank lines
    text = out.getvalue()
    if draw(st.booleans()):
        text = text.removesuffix(end)
    return text.encode()


@given(tables(), st.integers(1, 7), st.sampled_from([1, 2, 7, 1 << 20]))
@example(b'"a\n', 2, 1)
def test_ranges_of_any_number_of_ranks_hold_the_rows_of_the_csv_module(
    data, size, chunk_bytes
):
    n, cuts, wrong, open_quote = cut_all(data, size, csv_scan.scan_csv, chunk_bytes)
    if data == b'"a\n':
        assert (wrong, open_quote) == (NONE, 0)
        return
    whole = csv_rows(data)
    assert (n, wrong, open_quote) == (len(whole), NONE, NONE)
    want = [whole[i:j] for i, j in zip(bounds(n, size), bounds(n, size)[1:])]
    assert [csv_rows(data[i:j]) for i, j in zip(cuts, cuts[1:])] == want


@given(st.text(alphabet='a,"\r\n', max_size=30), st.integers(2, 7))
@example('a"\n"b', 2)
@example('""\n"a"b\n', 3)
def test_any_bytes_give_the_same_on_one_rank_and_on_many(text, size):
    data = text.encode()
    one = cut_all(data, 1, csv_scan.scan_csv, 1 << 20)
    n, cuts, *wrong = cut_all(data, size, csv_scan.scan_csv, 3)
    assert (n, wrong) == (one[0], list(one[2:]))
    assert cuts == sorted(cuts)


@given(st.text(alphabet='a,"\n', max_size=12))
def test_a_quote_is_refused_exactly_where_rfc_4180_has_none(text):
    """Beside an obvious reader, byte by byte: outside, at a field's start, inside."""
    wrong = NONE
    state, line = "start", 0
    for at, byte in enumerate(text):
        after = text[at + 1 : at + 2]
        if byte == '"':
            if state == "inside":
                state = "outside"
                legal = after in ("", ",", "\n", '"')
            else:
                # Just after a closing quote: the two are one quote of the text.
                doubled = at > 0 and text[at - 1] == '"'
                legal = state == "start" or doubled
                state = "inside"
            if not legal and wrong == NONE:
                wrong = line
        elif state != "inside":
            state = "start" if byte in ",\n" else "outside"
        line += byte == "\n"
    assert cut_all(text.encode(), 3, csv_scan.scan_csv, 4)[2] == wrong


@given(
    st.lists(st.sampled_from(["", " ", "#c", " # 1:2", "1", "-1 1:2 # c", "\t1 "])),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 7),
    st.sampled_from([1, 5, 1 << 20]),
)
def test_lines_of_comments_and_blanks_are_no_rows(lines, end, last, size, chunk_bytes):
    data = (end.join(lines) + (end if last else "")).encode()
    whole = [line for line in lines if line.partition("#")[0].strip()]
    n, cuts, *_ = cut_all(data, size, svm.scan_svm, chunk_bytes)
    assert n == len(whole)
    for i in range(size):
        part = data[cuts[i] : cuts[i + 1]].decode().split("\n")
        rows = [line.strip("\r") for line in part if line.partition("#")[0].strip()]
        assert rows == whole[bounds(n, size)[i] : bounds(n, size)[i + 1]]


@given(st.binary(max_size=40), st.integers(1, 9))
def test_blocks_are_whole_rows_and_together_the_range(data, chunk_bytes):
    data = data.replace(b"x", b"\n")
    found = list(row_pieces(io.BytesIO(data), 0, len(data), whole_lines, chunk_bytes))
    assert b"".join(block for _, block in found) == data
    assert all(data[at : at + len(block)] == block for at, block in found)
    assert all(block.endswith(b"\n") for _, block in found[:-1])


@given(st.text(alphabet="a\n", max_size=20), st.integers(0, 20))
def test_line_start_is_the_next_byte_after_a_line_feed(text, at):
    data = text.encode()
    starts = [0] + [i + 1 for i, byte in enumerate(text) if byte == "\n"]
    want = min([s for s in starts if s >= at] + [len(data)])
    assert line_start(io.BytesIO(data), min(at, len(data)), 0, len(data)) == want


def test_a_quote_in_a_long_line_is_found_across_chunks():
    data = b'"' + b"x\n" * 50 + b'"\n' + b"1\n" * 100
    found = list(row_pieces(io.BytesIO(data), 0, len(data), csv_scan.whole_rows, 8))
    assert b"".join(block for _, block in found) == data
    assert b'"\n' in found[0][1] and len(found) > 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("text", ["a\nb\nc\n", '"1\n2"\n3\n\n4', "x", "a\nb\n" * 50])
def test_ranks_cut_a_file_as_one_rank_does(comm, mpi_tmp_path, text):
    path, data = mpi_tmp_path / "rows.csv", text.encode()
    if comm.rank == 0:
        path.write_bytes(data)
    comm.Barrier()
    body = Body(str(path), 0, len(data), 7)
    cut = cut_rows([body], comm, csv_scan.scan_csv, 5)
    n, cuts, *_ = cut_all(data, comm.size, csv_scan.scan_csv, 1 << 20)
    begin, end = cuts[comm.rank : comm.rank + 2]
    n_lines = 7 + data.count(b"\n", 0, begin)
    start, stop = own_range(n, comm.rank, comm.size)
    own = [Span(0, str(path), begin, end, n_lines, stop - start)]
    assert cut == Cut(n, start, stop, own if stop > start else [])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
@pytest.mark.parametrize("counts", [[3, 1, 40, 2], [1, 1], [1] * 9, [50, 1]])
def test_ranks_cut_files_as_if_they_were_one(comm, mpi_tmp_path, counts, chunk_bytes):
    rows = [f'{i},"{"x" * (i % 7)}\n""{i}"\n' for i in range(sum(counts))]
    first, bodies = 0, []
    for i, count in enumerate(counts):
        text = "head\n" * (i % 3) + "".join(rows[first : first + count])
        text = text[:-1] if i % 2 else text  # the last line may lack its line feed
        path, n_bytes = mpi_tmp_path / f"{i}.csv", len(text)
        if comm.rank == 0:
            path.write_text(text)
        bodies.append(Body(str(path), 5 * (i % 3), n_bytes, i % 3))
        first += count
    comm.Barrier()
    cut = cut_rows(bodies, comm, csv_scan.scan_csv, chunk_bytes)
    start, stop = own_range(len(rows), comm.rank, comm.size)
    assert (cut.n, cut.start, cut.stop) == (len(rows), start, stop)
    found, row = [], start
    for span in cut.spans:
        path, text = span.path, Path(span.path).read_text()
        assert cut.path_of(row - start) == path
        assert span.n_lines == text[: span.begin].count("\n")
        for data, _ in span_pieces(span, csv_scan.whole_rows, chunk_bytes):
            found.append(data.decode().rstrip("\n") + "\n")
        row = start + span.stop
    assert "".join(found) == "".join(rows[start:stop])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "text, message",
    [("\n\n", "no rows"), ('a\nb"\n', "line 9: a quote"), ('a\n"b\n', "line 9: the")],
)
def test_a_file_without_rows_or_with_bad_quotes_is_refused_on_every_rank(
    comm, mpi_tmp_path, text, message
):
    path = mpi_tmp_path / "rows.csv"
    if comm.rank == 0:
        path.write_text(text)
    comm.Barrier()
    with pytest.raises(DataError, match=message):
        cut_rows([Body(str(path), 0, len(text), 7)], comm, csv_scan.scan_csv)
    comm.Barrier()
