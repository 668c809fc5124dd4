import csv
import io
import random
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.formats.columns.plan import Columns
from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.selection import Selection
from pympi_train.data.formats.text import csv_file, lines
from pympi_train.data.formats.text.csv_arrow import (
    LEAST_BYTES,
    load_arrow,
    parse_csv_arrow,
)
from pympi_train.data.formats.text.csv_fast import parse_csv_fast
from pympi_train.data.formats.text.csv_header import looks_like_data, read_csv_header
from pympi_train.data.formats.text.csv_parse import parse_csv, parse_csv_slow
from pympi_train.data.formats.text.lines import CHUNK_BYTES
from pympi_train.errors import DataError

FLOAT64, FLOAT32 = np.dtype("float64"), np.dtype("float32")


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def fast_only(data, columns, place, n_lines, dtype):
    found = parse_csv_fast(data, columns, dtype)
    assert found is not None, "the fast way gave up"
    return found


def arrow_only(data, columns, place, n_lines, dtype):
    found = parse_csv_arrow(load_arrow(), data, columns, dtype)
    assert found is not None, "pyarrow gave up"
    return found


def with_arrow(data, columns, place, n_lines, dtype):
    return csv_file._parser(LEAST_BYTES)(data, columns, place, n_lines, dtype)


ALL_WAYS = [fast_only, parse_csv_slow, parse_csv, with_arrow]
ways = pytest.mark.parametrize("way", ALL_WAYS)


@ways
@pytest.mark.parametrize(
    "data",
    [
        b"1,cat,2\n3,dog,4\n",
        b"1,cat,2\r\n3,dog,4\r\n",
        b"\n1,cat,2\n\n\n3,dog,4",
        b'"1",cat,2\n3,"dog","4"\n',
        b" 1 ,cat,2.0\n+3,dog,.4e1\n",
    ],
)
def test_numbers_and_labels_of_whole_rows(way, data):
    columns = Columns(("a", "b", "c"), (2, 0), (1,), ("label",))
    numbers, texts = way(data, columns, "", 0, FLOAT64)
    assert_array_equal(numbers, [[2, 1], [4, 3]])
    assert texts == [["cat", "dog"]]


@ways
def test_labels_in_the_first_column_and_none_at_all(way):
    first = Columns(("a", "b"), (1,), (0,), ("label",))
    assert way("é,1\n x,2\n".encode(), first, "", 0, FLOAT64)[1] == [["é", " x"]]
    none = Columns(("a", "b"), (1, 0))
    numbers, texts = way(b"5,1\n6,2\n", none, "", 0, FLOAT64)
    assert_array_equal(numbers, [[1, 5], [2, 6]])
    assert texts == []


fields = st.sampled_from(
    "1 -2.5 +3 1e5 .5 1. 1_0 0x10 nan inf -inf 1e400 1e39 ٣ 1d5 1f 1e 1e5e5 -- é "
    "NA nAn null <NA> 1\xa0 \xa01 1\u2003 True None 12345678901234567890 5e-324".split(
        " "
    )
) | st.sampled_from(["", " ", " 1", "1 ", "\t1", "1\x0b", "1\x1c", "1\x85", "1\0", '"'])
texts = fields | st.text(max_size=5) | st.floats().map(repr)


@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["label", "category", "date", "other"]),
    st.sampled_from([(), (0,), (0, 1)]),
)
@example([(" ", "1")], False, "label", ())
@example([("1\r", "2")], False, "label", ())
@example([("1", "a\0")], False, "label", ())
@example([("", ""), (" Na ", "N/A"), ("1", "1")], False, "label", (0, 1))
@example([("NULL", "2026-01-31"), ("True", "<NA>")], False, "date", (0, 1))
@example([("", "x")], True, "label", (0,))
@example([("nan", "nan"), ("2", "x")], False, "category", (0,))
def test_the_fast_way_gives_up_or_gives_what_the_slow_way_gives(
    rows, single, kind, optional
):
    columns = Columns(("a", "b"), (0,), (1,), (kind,), frozenset(optional))
    if single:
        columns = Columns(("a",), (0,), optional=frozenset(optional))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(row[:1] if single else row for row in rows)
    data = out.getvalue().encode("utf-8", "replace")
    for dtype in (FLOAT32, FLOAT64):
        try:
            slow = parse_csv_slow(data, columns, "", 0, dtype)
        except DataError:
            slow = None
        fast = parse_csv_fast(data, columns, dtype)
        by_arrow = parse_csv_arrow(load_arrow(), data, columns, dtype)
        for found in (fast, by_arrow):
            if found is not None:
                assert slow is not None
                assert_array_equal(found[0], slow[0])
                assert found[1] == slow[1]


@ways
def test_missing_values(way):
    columns = Columns(("a", "b", "c"), (0, 2), (1,), ("category",), frozenset({0, 1}))
    data = b"1,cat,2\nNA,,3\n,nan,4\nNaN,dog,5\n"
    numbers, texts = way(data, columns, "", 0, FLOAT64)
    assert_array_equal(numbers, [[1, 2], [np.nan, 3], [np.nan, 4], [np.nan, 5]])
    assert texts == [["cat", "", "nan", "dog"]]
    with pytest.raises(DataError, match="line 2, column 'c' .*found ''; .data. miss"):
        parse_csv(b"1,cat,2\n1,cat,\n", columns, "line ", 0, FLOAT64)
    with pytest.raises(DataError, match="line 2, column 'a' .* finite number, .*'inf'"):
        parse_csv(b"1,cat,2\ninf,cat,\n", columns, "line ", 0, FLOAT64)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_come_back_to_the_bit(values):
    data = "".join(f"{value!r}\n" for value in values).encode()
    for way in (fast_only, parse_csv_slow, arrow_only):
        numbers, _ = way(data, Columns(("a",), (0,)), "", 0, FLOAT64)
        assert numbers[:, 0].tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"1,cat,2\n3,dog,4\n",
        b"1,cat,2\r\n\n3,dog,4",
        '"1","c,""\n",2\n-3.5e-3, é ,.4e1\n'.encode(),
        b"1e308,7,-0.0\n0.1,8,123456789012345678901234567890\n",
    ],
)
def test_pyarrow_reads_what_is_usual(data):
    columns = Columns(("a", "b", "c"), (2, 0), (1,), ("label",))
    slow = parse_csv_slow(data, columns, "", 0, FLOAT64)
    found = arrow_only(data, columns, "", 0, FLOAT64)
    assert_array_equal(found[0], slow[0])
    assert found[1] == slow[1]


def test_without_pyarrow_files_are_read_all_the_same(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "LEAST_BYTES", 0)
    (tmp_path / "f.csv").write_text("a,y\n1.5,2\n" * 1 + "2.5,3\n")
    want = read_rows(tmp_path / "f.csv", alone, target="y")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = read_rows(tmp_path / "f.csv", alone, target="y")
    assert_array_equal(found.x, want.x)
    assert_array_equal(found.y, want.y)


bad = {
    "1,2\n3\n": r"f.csv, line 3: expected 2 fields as in the header, found 1",
    "1,2\n3,4,5\n": r"line 3: expected 2 fields as in the header, found 3",
    "1,2,3\n4\n": r"line 2: expected 2 fields as in the header, found 3",
    "1,2\n\n\nx,4\n": r"line 5, column 'a' \(number 1\): expected a number, found 'x'",
    "1,2\n3,\n": r"line 3, column 'b' \(number 2\): expected a number, found ''",
    "1,2\n3, \n": r"line 3, column 'b' \(number 2\): expected a number, found ' '",
    "1,nan\n": r"line 2, column 'b' .*: expected a finite number, found 'nan'",
    "1,-inf\n": r"expected a finite number, found '-inf'",
    "1,1e999\n": r"expected a finite number, found '1e999'",
    "1_0,1\n": r"line 2, column 'a' \(number 1\): expected a number, found '1_0'",
    "٣,1\n": r"expected a number, found '٣'",
    '"\n1","\n\nx"\n': r"line 3, column 'b' \(number 2\): expected a number",
    '1,2\n"3,4\n': r"line 3: the file ends inside the quote opened here",
    '1,2\n3,4"\n': r"line 3: a quote inside a field",
    '1,2\n3,"4"5\n': r"line 3: a quote inside a field",
    "1,2\n3,4\r5,6\n": r"line 3: a carriage return without a line feed",
    "\r\r\n1,2\n": r"line 2: a carriage return without a line feed",
    "1,2\n\r3": r"line 3: a carriage return without a line feed",
    '"1,2"\n': r"line 2: expected 2 fields as in the header, found 1",
    "1,2\n1,\xff\n": r"line 3: expected UTF-8, found byte 0xff",
    "1,2\n1,2\0\n": r"line 3: a NUL byte",
    "": r"f.csv: no rows",
    "\n\r\n": r"f.csv: no rows",
}


@pytest.mark.parametrize("way", [parse_csv_slow, parse_csv])
@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
@pytest.mark.parametrize("body", bad)
def test_what_is_wrong_is_named_with_line_and_column(
    alone, tmp_path, body, way, chunk_bytes
):
    path = tmp_path / "f.csv"
    encoded = body.encode("latin-1" if "\xff" in body else "utf-8")
    path.write_bytes(b"a,b\n" + encoded)
    with pytest.raises(DataError, match=bad[body]):
        read(path, alone, target="b", parse=way, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("body", ["1,2,3,4\n5,6\n", "1,2\n3,4,5,6\n"])
def test_rows_of_other_lengths_are_no_rows_of_the_columns_read(alone, tmp_path, body):
    path = tmp_path / "f.csv"
    path.write_text("a,b,c\n" + body)
    with pytest.raises(DataError, match="line 2: expected 3 fields as in the header"):
        read_rows(path, alone, features=["a"], target="b")


def read(path, comm, *, target, target_kind="number", need_target=True, **options):
    return csv_file.read_csv(
        [str(path)],
        comm,
        Selection(
            options.pop("features", None),
            target,
            target_kind=target_kind,
            need_target=need_target,
        ),
        name=str(path),
        **options,
    )


def test_an_empty_label_and_a_number_too_large_for_float32(alone, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("a,b\n1,x\n2, \n")
    with pytest.raises(DataError, match=r"line 3, column 'b'.*a class label, found"):
        read_rows(path, alone, target="b", target_kind="label")
    path.write_text("a,b\n1,2\n1e39,2\n")
    with pytest.raises(DataError, match=r"line 3, column 'a'.*too large for float32"):
        read_rows(path, alone, target="b", dtype="float32")
    assert read_rows(path, alone, target="b").x[1] == 1e39


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "speces"}, "no target column 'speces'; .* closest is 'species'"),
        ({"features": ["lenght"]}, "feature column 'lenght'; .* closest is 'length'"),
        ({"features": ["length", "length"]}, "'length' is named twice"),
        ({"features": ["species"]}, "'species' is both feature and target"),
        ({"target": None}, "no target is named; set target to one of 'length', '"),
        ({"target": ["species", "width"]}, "one column of class labels, got 'sp"),
        ({"target": "species", "text_labels": False}, "has the label 'cat', which"),
        ({"target": ["length", "width", "species"]}, "no feature column"),
    ],
)
def test_columns_that_cannot_be_had(alone, tmp_path, options, message):
    path = tmp_path / "f.csv"
    path.write_text("length,width,species\n1,2,cat\n")
    options = {"target": "species", "target_kind": "label"} | options
    with pytest.raises(DataError, match=message):
        read_rows(path, alone, **options)


def test_columns_are_chosen_in_the_order_named(alone, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n5,6,7,8\n")
    rows = read_rows(path, alone, features=["d", "a"], target=["c", "b"])
    assert_array_equal(rows.x, [[4, 1], [8, 5]])
    assert_array_equal(rows.y, [[3, 2], [7, 6]])
    assert rows.feature_names == ("d", "a")
    rest = read_rows(path, alone, target="b", dtype="float32")
    assert rest.feature_names == ("a", "c", "d")
    assert rest.x.dtype == np.float32
    assert rest.y.shape == (2, 1)


def test_an_absent_target_is_none_where_it_is_not_needed(alone, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("a,b\n1,2\n")
    for target in (None, "label"):
        rows = read_rows(path, alone, target=target, need_target=False)
        assert rows.y is None
        assert rows.feature_names == ("a", "b")
    # One target of two is there: it is no feature, either.
    rows = read_rows(path, alone, target=["b", "c"], need_target=False)
    assert rows.y is None
    assert rows.feature_names == ("a",)


@pytest.mark.parametrize("chunk_bytes", [1, 5, 1 << 16])
@pytest.mark.parametrize(
    "data, want",
    [
        (b"a,b\n1,2\n", (["a", "b"], 4, 1)),
        (b"\xef\xbb\xbfa,b\r\n1,2\n", (["a", "b"], 8, 1)),
        (b'\n\r\n"a\n""x""",b\n1,2\n', (["a\n\"x\"", "b"], 15, 4)),
        (b"a,b", (["a", "b"], 3, 0)),
    ],
)
def test_header(tmp_path, data, want, chunk_bytes):
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    names, body = read_csv_header(str(path), chunk_bytes=chunk_bytes)
    assert (names, body.start, body.n_lines) == want
    assert (body.path, body.stop) == (str(path), len(data))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "expected a header line"),
        (b"\n\n", "expected a header line"),
        (b"\xef\xbb\xbf", "expected a header line"),
        (b'"a,b\n1,2\n', "expected a header line"),
        (b"a,b,a\n1,2,3\n", "two columns have the name 'a'"),
        (b"a,\xff\n", "the header is not UTF-8"),
        (b"a,b\r1,2\r", "the header cannot be read"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, data, message):
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_csv_header(str(path))


def random_table(seed, n_rows=97):
    """A file with all that RFC 4180 allows, and what the csv module reads from it."""
    rng = random.Random(seed)
    labels = ["cat", "dog, big", 'a "mouse"', "two\nlines", "é" * 9]
    out = io.StringIO()
    csv.writer(out).writerow(["a", "b,\n", "label", "t"])
    for _ in range(n_rows):
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        end = rng.choice(["\n", "\r\n", "\n\n", "\r\n\r\n"])
        row = [rng.random(), rng.randrange(9), rng.choice(labels), -rng.random()]
        csv.writer(out, quoting=quoting, lineterminator=end).writerow(row)
    data = out.getvalue().removesuffix("\n").encode()
    rows = [row for row in csv.reader(io.StringIO(data.decode(), newline="")) if row]
    return data, rows[1:]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("chunk_bytes", [16, 512, CHUNK_BYTES])
@pytest.mark.parametrize("n_rows", [1, 2, 97])  # 1: ranks without a row
def test_the_ranks_together_hold_what_the_csv_module_reads(
    comm, mpi_tmp_path, chunk_bytes, n_rows
):
    data, want = random_table(chunk_bytes + n_rows, n_rows)
    path = mpi_tmp_path / "f.csv"
    if comm.rank == 0:
        path.write_bytes(data)
    comm.Barrier()
    rows = read(
        path, comm, target="label", target_kind="label", chunk_bytes=chunk_bytes
    )
    assert (rows.start, rows.stop) == (
        comm.rank * n_rows // comm.size,
        (comm.rank + 1) * n_rows // comm.size,
    )
    assert rows.n == n_rows
    own = want[rows.start : rows.stop]
    numbers = np.array([[row[i] for i in (0, 1, 3)] for row in own], dtype=float)
    assert_array_equal(rows.x, numbers.reshape(len(own), 3))
    assert rows.y.tolist() == [row[2] for row in own]
    assert comm.allgather(rows.y.dtype.kind) == [rows.y.dtype.kind] * comm.size


@pytest.mark.mpi(min_size=2)
def test_a_rank_reads_its_share_of_the_bytes_twice_and_no_more(
    comm, mpi_tmp_path, monkeypatch
):
    path = mpi_tmp_path / "f.csv"
    if comm.rank == 0:
        path.write_text("a,b\n" + "1.25,2\n" * 50_000)
    comm.Barrier()
    n_read = 0
    real = lines.read_at

    def counted(file, offset, n_bytes):
        nonlocal n_read
        n_read += n_bytes
        return real(file, offset, n_bytes)

    for module in ("lines", "csv_header", "scans"):
        monkeypatch.setattr(f"pympi_train.data.formats.text.{module}.read_at", counted)
    rows = read(path, comm, target="b", chunk_bytes=1 << 10)
    assert len(rows.x) == rows.stop - rows.start > 0
    share = path.stat().st_size / comm.size
    # Whatever else is read does not grow with the file: the header on rank 0, the
    # chunks that hold a cut, the ends of lines.
    assert n_read <= 2 * share + (1 << 17) * (comm.rank == 0) + (1 << 14)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("line", [2, 51, 100])
def test_the_line_is_right_whichever_rank_finds_it(comm, mpi_tmp_path, line):
    path = mpi_tmp_path / "f.csv"
    rows = ["a,b"] + ["1,2"] * 30 + ["", '"3\n",4', ""] + ["5,6"] * 67
    assert "\n".join(rows).count("\n") == 101
    rows = "\n".join(rows).split("\n")
    rows[line - 1] = "7,oops"
    if comm.rank == 0:
        path.write_text("\n".join(rows))
    comm.Barrier()
    with pytest.raises(DataError, match=f"line {line}, column 'b'.*found 'oops'"):
        read(path, comm, target="b", chunk_bytes=32)
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_one_label_on_one_rank_makes_all_of_them_text(comm, mpi_tmp_path):
    path = mpi_tmp_path / "f.csv"
    if comm.rank == 0:
        path.write_text("a,b\n" + "1,1\n" * 19 + "1,other\n")
    comm.Barrier()
    rows = read_rows(path, comm, target="b", target_kind="label")
    assert rows.y.dtype.kind == "U"
    assert rows.y[0] == ("1" if rows.stop < 20 or len(rows.y) > 1 else "other")
    with pytest.raises(DataError, match="row 19 .* has the label 'other', which"):
        read_rows(path, comm, target="b", target_kind="label", text_labels=False)
    comm.Barrier()


@pytest.mark.parametrize("mark, name", [(";", "semicolon"), ("\t", "tab")])
def test_other_separators_are_named(alone, tmp_path, mark, name):
    path = tmp_path / "f.csv"
    path.write_text(f"a{mark}b\n1,5{mark}2,5\n")
    with pytest.raises(DataError, match=f"must be a comma, not a {name}"):
        read_rows(path, alone, target="b")


BOOLEANS = b"True,1,x\n false ,TRUE,True\n1.5,False,false\n"


@ways
def test_booleans_are_numbers(way):
    columns = Columns(("a", "b", "y"), (0, 1), (2,), ("label",))
    numbers, texts = way(BOOLEANS, columns, "", 0, FLOAT64)
    assert numbers.tolist() == [[1, 1], [0, 1], [1.5, 0]]
    assert texts == [["x", "True", "false"]]
    wrong = BOOLEANS.replace(b" false ", b"Truest")
    with pytest.raises(DataError, match="2, column 'a'.* a number, found 'Truest'"):
        parse_csv(wrong, columns, "", 0, FLOAT64)


@pytest.mark.parametrize(
    "header, is_data",
    [
        ("5.1,3.5,1.4,0.2,setosa", True),
        ("1.000000000000000000e+00,8.69e-01,-6.35e-01", True),
        ("842302,M,17.99,10.38", True),
        ("5,0,0,0,0", True),  # digits
        ("1,0.5,True", True),
        ("0,1,2,3,target", False),  # pandas' names of an array's columns
        ("2015,2016,2017,y", False),
        ("1,2,3,4", False),
        ("a,b,y", False),
        ("1st,2nd,y", False),
        ("a,b,1.5", False),  # most are names
        ("True,False", False),
    ],
)
def test_header_that_looks_like_data(header, is_data):
    assert looks_like_data(header.split(",")) is is_data


def test_blanks_around_names_do_not_count(alone, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("a, b ,\ty\n1, 2, 3\n")
    assert read_rows(path, alone, target="y").feature_names == ("a", "b")


def test_whether_there_is_a_header_may_be_said(alone, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("1.5,2,0\n3.5,4,1\n")
    with pytest.raises(DataError, match="the first line looks like a row of numbers"):
        read_rows(path, alone, target="0")
    rows = read_rows(path, alone, target="2", header=False)
    assert (rows.n, rows.feature_names) == (2, ("0", "1"))
    rows = read_rows(path, alone, target="0", header=True)
    assert (rows.n, rows.feature_names) == (1, ("1.5", "2"))


@pytest.mark.parametrize("quotes", ["", '"'])
def test_text_of_any_length(alone, tmp_path, quotes):
    """The csv module's own limit is 131,072 characters."""
    path = tmp_path / "f.csv"
    long = quotes + "x" * 200_000 + quotes
    path.write_text(f'a,note,{long},y\n1,{long},2,"q ""u"""\n')
    rows = read_rows(path, alone, features="a", target="y", target_kind="label")
    assert (rows.x.tolist(), rows.y.tolist()) == ([[1]], ['q "u"'])
    path.write_text(f'a,note,y\n1,{long},"1,5"\n')
    with pytest.raises(DataError, match="line 2, column 'y'.*found '1,5'"):
        read_rows(path, alone, features="a", target="y")
