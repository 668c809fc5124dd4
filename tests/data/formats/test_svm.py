import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.selection import Selection
from pympi_train.data.formats.text import svm
from pympi_train.data.formats.text.svm_parse import (
    joined,
    parse_svm,
    parse_svm_fast,
    parse_svm_slow,
)
from pympi_train.errors import DataError


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def fast_only(data, path, n_lines, need_target=True):
    found = parse_svm_fast(data, n_lines)
    assert found is not None, "the fast way gave up"
    return found


ways = pytest.mark.parametrize("way", [fast_only, parse_svm_slow, parse_svm])


def lists(entries):
    return [list(part) for part in entries]


@ways
@pytest.mark.parametrize(
    "data",
    [
        b"+1 1:2 3:-.5\n-1 2:1e3\n+1\n",
        b"+1 1:2 3:-0.5\r\n-1 2:1000\r\n+1",
        b"+1  1:2\t3:-.5 # 7:7\n-1 2:1e3 #\n+1 \n",
    ],
)
def test_entries_of_whole_lines(way, data):
    want = [["+1", "-1", "+1"], [2, 1, 0], [11, 12, 13], [1, 3, 2], [2, -0.5, 1000]]
    assert lists(way(data, "f", 10)) == want


@ways
def test_lines_of_comments_and_blanks_are_counted_but_are_no_rows(way):
    found = way(b"# 1 1:1\n\n  \n a,b 1:2\n#\n7 2:1\n", "f", 0)
    assert lists(found) == [["a,b", "7"], [1, 1], [4, 6], [1, 2], [2, 1]]


def test_qid_is_read_over():
    data = b"1 qid:3 2:5\n"
    assert lists(parse_svm(data, "f", 0)) == [["1"], [1], [1], [2], [5]]


def test_indices_in_any_order_are_read():
    assert lists(parse_svm(b"1 3:1 2:5\n", "f", 0))[3:] == [[3, 2], [1, 5]]


def test_lines_without_a_label_where_none_is_needed():
    data = b"1:2\n1 1:3\n"
    assert lists(parse_svm(data, "f", 0, need_target=False))[0] == ["", "1"]
    with pytest.raises(DataError, match="f, line 1, column 1: expected a label"):
        parse_svm(data, "f", 0)


words = st.sampled_from(
    "1:2 2:3 3:.5 07:1 1: :2 1 x 1:2:3 -1:2 +1:2 1.0:2 1e0:3 1:nan 1:inf 1:1_0 1_0:1 "
    "2147483647:1 2147483648:1 99999999999999999999:1 1:1e400 1:0x1 1:٣ ٣:1 é qid:2 "
    "qid: qid:x:1 1:1#c # 1\x0b:1 5:1\x0b6:1 1:2\x1c3:4 1:2\x00 1:2\xa0 1:1d".split(" ")
)


@given(st.lists(st.lists(words, max_size=4), min_size=1, max_size=4), st.booleans())
@example([["1", "1:2:3", "1"]], True)
@example([["1:2", "1:2"]], True)
@example([["1", "2:1", "2:1"]], True)
@example([["1", "1:1"], ["1", "1:1"]], True)
def test_the_fast_way_gives_up_or_gives_what_the_slow_gives(lines, need_target):
    data = "\n".join(" ".join(line) for line in lines).encode()
    try:
        slow = lists(parse_svm_slow(data, "f", 5, need_target))
    except DataError:
        slow = None
    fast = parse_svm_fast(data, 5)
    assert fast is None or lists(fast) == slow


def test_values_come_back_to_the_bit():
    values = np.random.default_rng(0).standard_normal(1000) * 1e200
    data = b"1 " + b" ".join(b"%d:%r" % (i, v) for i, v in enumerate(values.tolist()))
    for way in (fast_only, parse_svm_slow):
        assert way(data, "f", 0).values.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "data, message",
    [
        ("1 1:2\n1 2:3 3\n", "line 2, column 7: expected index:value.*found '3'"),
        ("1 1:2\n\n1\t2:x\n", "line 3, column 3: expected index:value.*found '2:x'"),
        ("1 1:nan\n", "line 1, column 3: .* a finite number, found '1:nan'"),
        ("1 -1:2\n", "column 3: expected index:value.*found '-1:2'"),
        ("1 1:1 2147483648:2\n", "column 7: expected index:value"),
        ("1 2:1 1:1 2:3\n", "line 1, column 11: index 2 comes twice"),
        ("1:2 2:1\n", "line 1, column 1: expected a label, found '1:2'"),
        ("1 1:2\ny 1:2\n", "line 2: expected a finite number as target, found 'y'"),
        ("inf 1:2\n", "line 1: expected a finite number as target, found 'inf'"),
        ("1 1:2\n1 \xff:2\n", "line 2, column 3: expected UTF-8, found byte 0xff"),
        ("1\n2\n", "no index:value in any line"),
        ("# nothing\n\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_column(alone, tmp_path, data, message):
    path = tmp_path / "f.svm"
    path.write_bytes(data.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        read_rows(path, alone)


def test_columns_are_counted_from_one_unless_an_index_is_zero(alone, tmp_path):
    path = tmp_path / "f.svm"
    path.write_text("1 1:1 3:3\n2 2:2\n")
    rows = read_rows(path, alone)
    assert rows.zero_based is False
    assert_array_equal(rows.x, [[1, 0, 3], [0, 2, 0]])
    assert_array_equal(rows.y, [[1], [2]])
    rows = read_rows(path, alone, zero_based=True, n_features=5, dtype="float32")
    assert rows.zero_based is True and rows.x.dtype == np.float32
    assert_array_equal(rows.x, [[0, 1, 0, 3, 0], [0, 0, 2, 0, 0]])
    path.write_text("1 1:1\n2 0:2\n")
    rows = read_rows(path, alone)
    assert rows.zero_based is True
    assert_array_equal(rows.x, [[0, 1], [2, 0]])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_features": 2}, "line 3: expected indices from 1 to 2, found 3"),
        ({"n_features": 3, "zero_based": True}, "line 3: .* from 0 to 2, found 3"),
        ({"features": ["a"]}, "columns of an .svm file have no names"),
        ({"dtype": "float32"}, "line 1, index 2: too large for float32: 1e\\+39"),
    ],
)
def test_what_does_not_fit_is_refused(alone, tmp_path, options, message):
    path = tmp_path / "f.svm"
    path.write_text("1 1:1 2:1e39\n\n1 2:1 3:3\n")
    with pytest.raises(DataError, match=message):
        read_rows(path, alone, **options)
    path.write_text("1 0:1\n")
    with pytest.raises(DataError, match="line 1: .* indices from 1 to 4, found 0"):
        read_rows(path, alone, n_features=4, zero_based=False)


def test_labels_may_be_absent_or_placeholders_where_none_is_needed(alone, tmp_path):
    path = tmp_path / "f.svm"
    for text in ("1:2\n2:3\n", "? 1:2\n? 2:3\n", "\ufeff1 1:2\n1:0 2:3\n"):
        path.write_text(text, "utf-8")
        rows = read_rows(path, alone, need_target=False)
        assert rows.y is None
        assert_array_equal(rows.x, [[2, 0], [0, 3]])


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    "labels, want", [("+1 -1 2.0", [1, -1, 2]), ("a 1 2", ["a", "1", "2"])]
)
def test_labels(alone, tmp_path, labels, want, bom):
    path = tmp_path / "f.libsvm"
    lines = [f"{label} 1:1\n" for label in labels.split()]
    path.write_text(bom + "".join(lines), "utf-8")
    assert read_rows(path, alone, target_kind="label").y.tolist() == want


def test_equals_scikit_learn(alone, tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 20)) * (rng.random((50, 20)) < 0.2)
    y = rng.integers(-5, 5, 50)
    for zero_based in (True, False):
        path = str(tmp_path / "f.svm")
        datasets.dump_svmlight_file(
            x, y, path, zero_based=zero_based, comment="two\nlines", query_id=y
        )
        want, labels = datasets.load_svmlight_file(
            path, n_features=20, zero_based=zero_based
        )
        rows = read_rows(path, alone, n_features=20, target_kind="label")
        assert rows.zero_based == zero_based
        assert rows.x.tobytes() == want.toarray().tobytes()
        assert_array_equal(rows.y, labels)


def test_joined_keeps_the_order():
    one, two = parse_svm(b"1 1:2\n", "f", 0), parse_svm(b"2 3:4\n3\n", "f", 1)
    assert lists(joined([one, two])) == lists(parse_svm(b"1 1:2\n2 3:4\n3\n", "f", 0))
    assert lists(joined([])) == [[], [], [], [], []]
    assert joined([]).indices.dtype == np.int64


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("chunk_bytes", [8, 1 << 20])
@pytest.mark.parametrize("n_rows", [1, 23])  # 1: ranks without a row
def test_the_ranks_together_hold_the_rows(comm, mpi_tmp_path, chunk_bytes, n_rows):
    rng = np.random.default_rng(n_rows)
    x = np.round(rng.standard_normal((n_rows, 6)) * (rng.random((n_rows, 6)) < 0.4), 3)
    x[0, 5], x[:-1, 0] = 1.5, 0  # the largest index on the first rank
    x[-1, 0] = 2.5  # index 0 on the last
    path = mpi_tmp_path / "f.svm"
    lines = ["# comment", ""]
    for i, row in enumerate(x):
        pairs = [f"{j}:{row[j]}" for j in np.flatnonzero(row).tolist()]
        lines += [" ".join([str(i % 3), *pairs]), "#"][: 1 + i % 2]
    if comm.rank == 0:
        path.write_text("\n".join(lines))
    comm.Barrier()
    rows = svm.read_svm(
        [str(path)],
        comm,
        Selection(target_kind="label"),
        name=str(path),
        chunk_bytes=chunk_bytes,
    )
    own = slice(comm.rank * n_rows // comm.size, (comm.rank + 1) * n_rows // comm.size)
    assert (rows.n, rows.start, rows.stop) == (n_rows, own.start, own.stop)
    assert rows.zero_based is True
    assert_array_equal(rows.x, x[own])
    assert_array_equal(rows.y, np.arange(n_rows)[own] % 3)
    assert rows.y.dtype == np.int64


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("line", [1, 12, 20])
def test_the_line_is_right_whichever_rank_finds_it(comm, mpi_tmp_path, line):
    path = mpi_tmp_path / "f.svm"
    lines = ["1 1:1"] * 20
    if comm.rank == 0:
        lines[line - 1] = "1 1:1 2"
        path.write_text("\n".join(lines))
    comm.Barrier()
    with pytest.raises(DataError, match=f"line {line}, column 7: expected index:value"):
        read_rows(path, comm)
    if comm.rank == 0:
        lines[line - 1] = "1 1:1 5:1"
        path.write_text("\n".join(lines))
    comm.Barrier()
    with pytest.raises(DataError, match=f"line {line}: expected indices from 1 to 4"):
        read_rows(path, comm, n_features=4)
    comm.Barrier()
