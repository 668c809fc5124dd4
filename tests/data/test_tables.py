"""Tables: the same rows from every format, in any pieces, on any ranks."""

import csv
import gzip
import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from named_arrays import save_arrays
from numpy.testing import assert_allclose, assert_array_equal
from pyarrow import parquet

import pympi_train as pt
from pympi_train.data.formats.text.csv_scan import scan_csv, whole_rows
from pympi_train.data.formats.text.cuts import Body
from pympi_train.data.tables import stripes
from pympi_train.data.tables.readers.array_table import steps_by_chunk
from pympi_train.data.tables.readers.text_index import TextIndex
from pympi_train.data.tables.source import (
    Field,
    Table,
    join_batches,
    missing_mask,
    recut,
)
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.data.tables.table import open_table
from pympi_train.datatools.check import check_files
from pympi_train.errors import ConfigError, DataError, RankMismatchError

N = 101
FORMATS = ("csv", "csv.gz", "tsv", "parquet", "npz", "compressed.npz", "h5", "zarr")


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def make_columns(n=N):
    rng = np.random.default_rng(7)
    x = rng.standard_normal(n)
    x[:3] = -0.0, 1e-320, np.nan
    return {
        "x": x,
        "big": rng.integers(-(2**62), 2**62, n) // 10,
        "yes": rng.random(n) < 0.5,
        "city": np.array(rng.choice(["Oslo", "Tromsø", 'a "b", c', "\n"], n), object),
        "day": rng.integers(0, 9000, n).astype("datetime64[D]").astype("M8[us]"),
    }


def write(path, columns):
    """Write columns to a file of the format of its name; return the path as str."""
    plain = {n: v.astype(str) if v.dtype == object else v for n, v in columns.items()}
    if path.suffix == ".gz":
        plain_path = write(path.with_name("plain.csv"), columns)
        path.write_bytes(gzip.compress(Path(plain_path).read_bytes()))
        Path(plain_path).unlink()
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values())))
    elif path.suffix == ".parquet":
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        parquet.write_table(table, path, row_group_size=17)
    elif path.suffix == ".npz":
        is_small = "compressed" in path.name
        (np.savez_compressed if is_small else np.savez)(path, **plain)
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                values = values.astype(np.int64) if values.dtype.kind == "M" else values
                file.create_dataset(name, data=values, chunks=(10,))
    else:
        import zarr

        group = zarr.open_group(path, mode="w")
        for name in ("x", "big", "yes"):
            group.create_array(
                name,
                data=columns[name],
                chunks=(10,),
                config={"write_empty_chunks": True},
            )
    return str(path)


def joined(batches):
    return join_batches(list(batches))


def file_of(folder, format):
    return write(folder / f"a.{format}", make_columns())


def assert_same(found, expected):
    for name, values in found.items():
        wanted = expected[name]
        if name == "day" and values.dtype.kind == "i":
            wanted = wanted.astype(np.int64)
        assert_array_equal(np.ma.getdata(values), wanted, err_msg=name)
        assert_array_equal(missing_mask(values), missing_mask(wanted))
    assert_array_equal(np.signbit(found["x"][:2]), np.signbit(expected["x"][:2]))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_the_same_rows_in_any_pieces(format, tmp_path, alone):
    table = open_table(file_of(tmp_path, format), alone)
    columns = make_columns()
    assert table.n == N and set(table.names) <= set(columns)
    assert len(table.names) == (3 if format == "zarr" else 5)
    assert_same(joined(table.pieces(0, N)), columns)
    for start, stop in ((0, 1), (9, 40), (50, N), (100, N)):
        rows = {name: values[start:stop] for name, values in columns.items()}
        assert_same(joined(table.pieces(start, stop)), rows)
    first = next(iter(pt.data.open(table.files[0], alone, ["big", "x"], batch_rows=7)))
    assert list(first) == ["big", "x"] and len(first["x"]) == 7
    assert table.field("big").type == "int64" and table.field("x").type == "float64"


@pytest.mark.parametrize("kind", ["npy", "npz", "small.npz", "h5", "chunks.h5", "zarr"])
def test_images_keep_their_shape(kind, tmp_path, alone):
    images = np.arange(5 * 3 * 2 * 1, dtype=np.uint8).reshape(5, 3, 2, 1)
    for name, values in (("a", images), ("b", images[:2] + 100)):
        path = tmp_path / f"{name}.{kind}"
        if kind == "npy":
            np.save(path, values)
        else:
            chunks = 2 if "chunks" in kind else None
            is_small = "small" in kind
            save_arrays(path, {"x": values}, chunks=chunks, compressed=is_small)
    table = open_table(tmp_path, alone)
    assert_array_equal(
        joined(table.pieces(3, 7))["x"], np.concatenate([images[3:], images[:2] + 100])
    )
    assert table.field("x").labels()[-1] == "x[2,1,0]"


def test_svm_is_dense(tmp_path, alone):
    (tmp_path / "a.svm").write_text("1 1:2 3:4.5\n# c\n-1 2:1e-320\n1\n")
    found = joined(open_table(str(tmp_path / "a.svm"), alone).pieces(0, 3))
    assert found["label"].tolist() == [1, -1, 1] and found["label"].dtype == np.int64
    assert found["x"].tolist() == [[2, 0, 4.5], [0, 1e-320, 0], [0, 0, 0]]


CELLS = {
    "int64": ["0", "-7", " 12 ", "123456789012345678"],
    "float64": ["-0.0", "1e-320", "inf", "+5", "-0", ".5", "1234567890123456789.5"],
    "bool": ["true", "FALSE", "True"],
    "datetime64[us]": ["2020-02-29", "2020-02-29T12:30", "1969-12-31 23:59:59.5"],
    "text": ["007", "1234567890123456789", "1_000", "2020-13-01", "0x10", "a"],
}


@pytest.mark.parametrize("type_, cell", [(t, c) for t, cs in CELLS.items() for c in cs])
@pytest.mark.parametrize("gap", [False, True])
def test_types_of_cells(type_, cell, gap, tmp_path, alone):
    others = {"bool": "false", "datetime64[us]": "2021-01-01", "text": "b"}
    other = others.get(type_, "1")
    rows = [cell, other, *(["NA", '""'] if gap else [])]
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{row},x\n" for row in rows))
    table = open_table(str(tmp_path / "a.csv"), alone, ["a"])
    assert table.fields[0].type == type_
    values = joined(table.pieces(0, len(rows)))["a"]
    is_text = type_ == "text"
    gaps = [True, not is_text] if gap else []
    assert missing_mask(values).tolist() == [False, False, *gaps]
    if type_ in ("int64", "float64"):
        assert values[0] == (float if type_ == "float64" else int)(cell)
    if is_text:
        assert values[0] == cell and (not gap or values[3] == "")


def test_columns_agree_over_ranks_and_files(tmp_path, alone):
    (tmp_path / "a1.csv").write_text("a,b\n1,\n2,x\n")
    (tmp_path / "a2.csv").write_text("b,a\n,0.5\n")
    table = open_table(str(tmp_path / "a*.csv"), alone)
    assert [f.type for f in table.fields] == ["float64", "text"]
    assert joined(table.pieces(1, 3))["a"].tolist() == [2, 0.5]


@given(
    n=st.one_of(st.integers(1, 300), st.integers(2**31, 2**41)),
    width=st.integers(1, 10**6),
    rows=st.one_of(st.none(), st.integers(1, 50)),
    size=st.integers(1, 9),
)
def test_stripes_are_every_row_once_and_know_no_rank(n, width, rows, size):
    if rows is not None and n > 300:
        rows *= 2**32  # else too many stripes to list
    table = Table("t", (), n, [Field("x", "float64", (width,))])
    every = [
        Stripes(table, SimpleNamespace(rank=rank, size=size), rows)
        for rank in range(size)
    ]
    alone = Stripes(table, SimpleNamespace(rank=0, size=1), rows)
    ends = [one.own_rows for one in every if one.own]
    assert ends[0][0] == 0 and ends[-1][1] == n
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:]))
    assert {one.rows for one in every} == {alone.rows}
    for one in every:
        for stripe in (*one.own[:2], *one.own[-2:]):
            assert one.leaf_of(stripe) in one.leaves
            assert one.leaf_of(stripe) == alone.leaf_of(stripe)
            assert stripe in one.of_leaf(one.leaf_of(stripe))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20))
def test_steps_are_every_row_once(start, count, batch_rows, chunk_rows):
    steps = list(steps_by_chunk(start, start + count, batch_rows, chunk_rows))
    rows = [row for low, high in steps for row in range(low, high)]
    assert rows == list(range(start, start + count))
    assert all(low % chunk_rows == 0 for low, _ in steps[1:])


def test_recut_says_that_rows_are_gone():
    batches = recut([{"x": np.arange(5)}], [2, 2, 2])
    assert [len(next(batches)["x"]) for _ in range(2)] == [2, 2]
    with pytest.raises(DataError, match="fewer rows than before"):
        next(batches)


FIELD = st.text(alphabet='ab",\t\n\r 1', max_size=4)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=12), st.data())
def test_any_rows_of_a_tsv_are_found(tmp_path_factory, rows, data):
    from mpi4py import MPI

    rows = [("a", "b"), *rows]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)
    path = tmp_path_factory.mktemp("t") / "a.tsv"
    path.write_bytes(text.getvalue().encode())
    body = Body(str(path), 0, path.stat().st_size)
    chunk_bytes = data.draw(st.integers(1, 40))
    scans = [partial(scan, separator="\t") for scan in (scan_csv, whole_rows)]
    index = TextIndex([body], MPI.COMM_SELF, *scans, chunk_bytes)
    assert index.n == len(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    found = b"".join(part for _, part, _ in index.read(start, stop))
    lines = io.StringIO(found.decode(), newline="")
    assert list(map(tuple, csv.reader(lines, delimiter="\t"))) == rows[start:stop]


def spoil(name, path):
    """Write a file that is bad in one way; return what to open."""
    bad_csv = {
        "extra field": b"a,b\n1,2\n1,2,3\n",
        "several": b"a,b\n1\n\n1,2\n1\n3,4,5\n",
        "missing field": b'a,b\n"1\n",2\n1\n',
        "not UTF-8": b"a,b\n1,2\n1,\xff\n",
        "twice": b"a,b,a\n1,2,3\n",
        "no rows": b"a,b\n",
        "no header": b"1.5,2\n1,2\n",
        "quote": b'a,b\n1,x"y\n',
        "nothing": b"",
        "old Mac": b"a,b\r1,2\r",
    }
    if name in bad_csv:
        (path / "a.csv").write_bytes(bad_csv[name])
        return str(path / "a.csv")
    if name in ("lists", "decimals"):
        import decimal

        column = pa.array([[1]] if name == "lists" else [decimal.Decimal("1.5")])
        parquet.write_table(pa.table({"a": [1], "b": column}), path / "a.parquet")
    elif name == "types differ":
        parquet.write_table(pa.table({"a": [1]}), path / "a.parquet")
        parquet.write_table(pa.table({"a": ["1"]}), path / "b.parquet")
    elif name == "bytes":
        column = pa.array([b"a", b"\xff"])
        parquet.write_table(pa.table({"a": column}), path / "a.parquet")
    elif name == "compound":
        import h5py

        with h5py.File(path / "a.h5", "w") as file:
            file["b"] = np.zeros(3, [("lat", "f4"), ("lon", "f4")])
    elif name == "metadata":
        save_arrays(path / "a.zarr", {"x": np.ones(4)})
        (path / "a.zarr" / "x" / "zarr.json").write_text("{")
    elif name == "same names":
        both = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
        parquet.write_table(both, path / "a.parquet")
    elif name == "objects":
        np.save(path / "a.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    elif name == "lengths":
        np.savez(path / "a.npz", a=np.arange(3), b=np.arange(4))
    elif name == "empty among many":
        np.save(path / "a1.npy", np.ones((2, 2)))
        np.save(path / "a2.npy", np.ones((0, 2)))
    elif name.startswith("cut "):
        file = file_of(path, name.removeprefix("cut "))
        data = Path(file).read_bytes()
        Path(file).write_bytes(data[: len(data) // 2])
    elif name == "svm":
        (path / "a.svm").write_text("1 1:2\n1 1:x\n")
    elif name == "gone":
        return str(path / "gone.csv")
    return str(path)


BAD = {
    "extra field": r"a.csv, line 3: expected 2 fields, found 3: '1,2,3'",
    "several": r"a.csv, line 2: .*'1'; 2 more within 15 bytes, in the lines 5, 6$",
    "missing field": r"a.csv, line 4: expected 2 fields, found 1: '1'",
    "not UTF-8": r"a.csv, line 3: byte 3 of the line is 0xff, which is no UTF-8",
    "twice": r"a.csv: two columns have the name 'a'",
    "no rows": r"a.csv: no rows",
    "no header": r"a.csv: the first line looks like a row of numbers",
    "quote": r"a.csv, line 2: a quote inside a field",
    "old Mac": r"a.csv: the header cannot be read: .* lines end with a line feed",
    "nothing": r"a.csv: expected a header line with the names",
    "lists": r"a.parquet: column 'b' is of type list.*not read",
    "decimals": r"a.parquet: column 'b' is of type decimal",
    "types differ": r"b.parquet: column 'a' is text, but int64 in .*a.parquet",
    "same names": r"a.parquet: two columns have the name 'a'",
    "bytes": r"a.parquet, column 'a': text that is not UTF-8",
    "compound": r"a.h5, data set 'b': a compound data set .*\(--columns\)",
    "metadata": r"a.zarr, array 'x': cannot be read.*\(--columns\)",
    "objects": r"a.npy: holds Python objects",
    "lengths": r"a.npz: 'b' has 4 rows, but 'a' 3",
    "empty among many": r"a2.npy: no rows",
    "cut npz": r"a.npz: not a complete .npz",
    "cut parquet": r"a.parquet: cannot be read",
    "cut h5": r"a.h5: cannot be read, .*truncated",
    "svm": r"a.svm, line 2, column 3: expected index:value",
    "gone": r"gone.csv: no such file",
}


def test_absent_chunks_of_zarr_are_told(tmp_path, alone):
    import zarr

    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.arange(9.0) + 1, chunks=(4,))
    (path / "c" / "1").unlink()
    table = open_table(str(path), alone)
    assert "array 'x': 1 chunks are absent and read as their fill" in table.remarks[0]
    found = check_files(str(path), alone, is_shown=False)["findings"]
    assert found[0] == ("absent", table.remarks[0])


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name, tmp_path, alone):
    with pytest.raises(DataError, match=BAD[name]):
        list(pt.data.open(spoil(name, tmp_path), alone))


def test_arguments_are_checked(tmp_path, alone):
    path = write(tmp_path / "a.csv", make_columns())
    with pytest.raises(DataError, match="no column 'z'; there are 'x', 'big'"):
        pt.data.open(path, alone, columns="z")
    with pytest.raises(DataError, match="asked for twice"):
        pt.data.open(path, alone, columns=["x", "x"])
    with pytest.raises(DataError, match="batch_rows must be a whole number"):
        pt.data.open(path, alone, batch_rows=0)
    rows = pt.data.open(path, alone)
    with pytest.raises(DataError, match="column 'city' is text, no number"):
        rows.mean("city")
    with pytest.raises(ConfigError, match="sum, min, max"):
        rows.reduce(len, "product")


def test_a_file_that_goes_after_opening(tmp_path, alone):
    for format in ("csv", "parquet", "npz", "h5"):
        path = file_of(tmp_path, format)
        rows = pt.data.open(path, alone)
        (tmp_path / f"a.{format}").unlink()
        message = f"a.{format}.*: cannot be read.*[Nn]o such|a.h5: no such file"
        with pytest.raises(DataError, match=message):
            list(rows)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("format", ["csv", "parquet", "h5"])
def test_ranks_have_every_row_once(format, comm, mpi_tmp_path, monkeypatch):
    from mpi4py import MPI

    if comm.rank == 0:
        file_of(mpi_tmp_path, format)
    comm.Barrier()
    monkeypatch.setattr(stripes, "MIN_ROWS", 7)
    path, columns = str(mpi_tmp_path / f"a.{format}"), make_columns()
    rows = pt.data.open(path, comm, batch_rows=8)
    own = {name: values[rows.start : rows.stop] for name, values in columns.items()}
    found = joined(rows)
    assert_array_equal(found["x"], own["x"])
    assert_array_equal(found["city"], own["city"])
    there = columns["x"][~np.isnan(columns["x"])]
    assert rows.n == N and rows.reduce(lambda b: len(b["x"])) == N
    assert rows.mean("x") == pytest.approx(there.mean())
    assert rows.reduce(lambda b: b["big"].max(), "max") == columns["big"].max()
    for got, wanted in zip(rows.histogram("x", 5), np.histogram(there, 5)):
        assert_allclose(got, wanted)
    statistics = rows.statistics()
    assert statistics == pt.data.open(path, MPI.COMM_SELF).statistics()
    by_name = {one["name"]: one for one in statistics}
    assert by_name["x"]["std"] == pytest.approx(there.std())
    assert by_name["x"]["missing"] == 1 and by_name["x"]["max"] == there.max()
    assert by_name["big"]["min"] == columns["big"].min()
    assert by_name["city"]["distinct"] == 4
    assert sum(n for _, n in by_name["city"]["labels"]) == N
    assert by_name["yes"]["mean"] == pytest.approx(columns["yes"].mean())


@pytest.mark.mpi(min_size=2)
def test_more_ranks_than_rows(comm, mpi_tmp_path):
    if comm.rank == 0:
        (mpi_tmp_path / "a.csv").write_text("a,b\n5,x\n")
    comm.Barrier()
    rows = pt.data.open(str(mpi_tmp_path / "a.csv"), comm)
    assert sum(comm.allgather(len(list(rows)))) == 1
    assert rows.mean("a") == 5 and rows.histogram("a", 2)[0].sum() == 1
    assert rows.statistics()[0]["mean"] == 5
    with pytest.raises(RankMismatchError, match="columns differs between ranks"):
        pt.data.open(str(mpi_tmp_path / "a.csv"), comm, ["a", "b"][: 1 + comm.rank % 2])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["extra field", "cut parquet", "lists"])
def test_all_ranks_raise(name, comm, mpi_tmp_path):
    if comm.rank == 0:
        spoil(name, mpi_tmp_path)
    comm.Barrier()
    with pytest.raises(DataError, match=BAD[name]):
        pt.data.open(str(mpi_tmp_path), comm)


@pytest.mark.mpi(min_size=2)
def test_one_rank_that_cannot_read_is_enough(comm, mpi_tmp_path, monkeypatch):
    monkeypatch.setattr(stripes, "MIN_ROWS", 7)
    if comm.rank == 0:
        file_of(mpi_tmp_path, "parquet")
    comm.Barrier()
    rows = pt.data.open(str(mpi_tmp_path), comm)
    if comm.rank == 1:
        rows._table.files = (str(mpi_tmp_path / "gone.parquet"),)
    for work in (rows.statistics, lambda: rows.mean("x")):
        with pytest.raises(DataError, match="gone.parquet: cannot be read"):
            work()


def test_statistics_do_not_depend_on_stripes_left_empty(tmp_path, alone):
    table = open_table(file_of(tmp_path, "npz"), alone, ["x", "big"])
    found = []
    for rows in (N, 10):
        some = Stripes(table, alone, rows)
        statistics = Statistics(table.fields, some)
        for stripe, batch in some.read():
            statistics.add(stripe, batch)
            statistics.add(stripe, {name: v[:0] for name, v in batch.items()})
        found.append(statistics.agree(alone))
    for one, other in zip(*found):
        assert one["mean"] == pytest.approx(other["mean"])
        assert one["rows"] == other["rows"] == N
