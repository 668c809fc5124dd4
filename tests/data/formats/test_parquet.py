"""Parquet: types, missing values, row groups, and files that are refused."""

import datetime
import decimal

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pyarrow import parquet

from pympi_train.data.formats.columns import arrow
from pympi_train.data.formats.columns.filling import Filling
from pympi_train.data.formats.columns.parquet import BATCH_ROWS
from pympi_train.data.formats.columns.plan import plan_columns
from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.selection import Selection
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def written(path, columns, **options):
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
    parquet.write_table(table, path, **options)
    return path


def test_every_type_of_number(alone, tmp_path):
    values = [0, 1, 1, 0]
    types = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64"
    columns = {name: pyarrow.array(values).cast(name) for name in types.split()}
    columns |= {"bool": pyarrow.array(values).cast("bool"), "y": values}
    columns["a.b"] = columns["int8"].dictionary_encode()
    path = written(tmp_path / "a.parquet", columns)
    found = read_rows(path, alone, target="y")
    assert found.feature_names == (*types.split(), "bool", "a.b")
    assert_array_equal(found.x, np.array([values] * 13).T)


def test_missing_values_of_every_type(alone, tmp_path):
    columns = {
        "i": pyarrow.array([1, None, 3]),
        "f": pyarrow.array([1.0, 2.0, None], "float32"),
        "b": pyarrow.array([None, True, False]),
        "n": pyarrow.nulls(3),
        "t": pyarrow.array(["x", None, "NA"]).dictionary_encode(),
        "d": pyarrow.array([None, datetime.date(1970, 1, 3), None]),
        "y": pyarrow.array(["u", None, "v"]),
    }
    path = written(tmp_path / "a.parquet", columns)
    how = {"target": "y", "target_kind": "label", "categories": ["t"], "dates": ["d"]}
    found = read_rows(path, alone, **how, lacking="all")
    nan = np.nan
    want = [[1, 1, nan, nan, 0, nan], [nan, 2, 1, nan, nan, 2], [3, nan, 0] + [nan] * 3]
    assert_array_equal(found.x, want)
    assert found.categories[0].values == ("x",)
    assert found.unlabelled.tolist() == [False, True, False]
    with pytest.raises(DataError, match=r"a.parquet, row 1 \(from 0\), column 'i': ex"):
        read_rows(path, alone, **how)


NUMBERS = {
    "float16": [0.5, -3.0, np.nan, np.inf, None],
    "float32": [0.1, 1e-45, 3e38, np.nan, -np.inf, None],
    "float64": [0.1, 1 / 3, 2.0**53 + 2, 1e39, np.nan, None],
    "int64": [2**62 + 1, -(2**24) - 1, 2**53 + 1, 7, None],
    "uint8": [255, 0, None],
    "bool": [True, False, None],
    "string": ["1"],
}


@st.composite
def numeric_batches(draw):
    """Return a RecordBatch; most values are good ones."""
    n, columns = draw(st.integers(1, 7)), {}
    for i in range(draw(st.integers(2, 7))):
        often = ["float32"] * 3 + ["float64", "int64"] * 2
        type_ = draw(st.sampled_from([*often, *NUMBERS]))
        good = st.sampled_from(NUMBERS[type_][: 2 if type_ != "string" else 1])
        pick = draw(st.sampled_from([good, good, st.sampled_from(NUMBERS[type_])]))
        values = draw(st.lists(pick, min_size=n, max_size=n))
        columns[f"c{i}"] = pyarrow.array(values).cast(type_)
    return pyarrow.record_batch(columns)


@given(
    numeric_batches(),
    st.sampled_from(["none", "features", "all"]),
    st.sampled_from(["float32", "float64"]),
    st.integers(1, 60),
)
def test_columns_together_are_as_columns_one_by_one(batch, lacking, dtype, panel_bytes):
    names = batch.schema.names
    last_two = {"target": names[-1:], "target_kind": "number", "lacking": lacking}
    plan, found = plan_columns("f", names, Selection(**last_two)), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "PANEL_BYTES", panel_bytes)
        for together in (True, False):
            patch.setattr(arrow, "has_tensors", lambda: together)
            patch.setattr(arrow, "BLOCK_ROWS", 4096 if together else 3)
            typed = arrow.typed_columns(plan.columns, batch.schema.types)
            assert together or not typed.alike
            filling = Filling(plan, 2 * len(batch), dtype)
            try:
                for at in (0, len(batch)):
                    place = "f, row ", at
                    filling.add_piece(arrow.ArrowPiece(batch, typed, place, dtype))
                found.append((filling.features(), filling._numbers))
            except DataError as error:
                found.append(str(error))
    one, other = found
    if isinstance(one, str):
        assert one == other
    else:
        for a, b in zip(one, other):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Oslo"])
def test_times_are_days_in_utc(alone, tmp_path, unit, zone):
    time = datetime.datetime(1960, 2, 29, 6, tzinfo=datetime.timezone.utc)
    time = time if zone else time.replace(tzinfo=None)
    columns = {
        "t": pyarrow.array([time], pyarrow.timestamp(unit, zone)),
        "d": pyarrow.array([time.date()], pyarrow.date64()),
        "text": ["1960-02-29T06:00"],
        "y": [1],
    }
    path = written(tmp_path / "a.parquet", columns)
    found = read_rows(path, alone, target="y", dates=["t", "d", "text"])
    day = (datetime.date(1960, 2, 29) - datetime.date(1970, 1, 1)).days
    assert found.x.tolist() == [[day + 0.25, day, day + 0.25]]


@pytest.mark.parametrize(
    "values, want",
    [
        ([3, 1, 3], [3, 1, 3]),
        ([True, False, True], [1, 0, 1]),
        ([1.0, 2.0, 1.0], [1, 2, 1]),
        (["b", " a", "b"], ["b", "a", "b"]),
        ([b"b", b"a", b"b"], ["b", "a", "b"]),
        (["1", "+2", "1.0"], [1, 2, 1]),
    ],
)
def test_labels(alone, tmp_path, values, want):
    path = written(tmp_path / "a.parquet", {"x": [1, 2, 3], "y": values})
    found = read_rows(path, alone, target="y", target_kind="label")
    assert found.y.tolist() == want


WRONG = {
    "list": [[1], [2]],
    "decimal": [decimal.Decimal("1.5")] * 2,
    "time": [datetime.datetime(2020, 1, 1)] * 2,
    "text": ["a", "b"],
    "inf": [1.0, np.inf],
    "nan": [1.0, np.nan],
    "null": [1, None],
    "huge": [1.0, 1e300],
    "struct": [{"a": 1}] * 2,
    "bytes": [b"a", b"\xff"],
}


@pytest.mark.parametrize(
    "name, message",
    [
        ("list", "row 0 .*, column 'list': expected a number, found type list"),
        ("decimal", "column 'decimal': expected a number, found type decimal.*drop"),
        ("time", "column 'time': expected a number, found a date or time; .*dates"),
        ("text", "column 'text': expected a number, found type string; .*categorical"),
        ("inf", r"row 1 \(from 0\), column 'inf': expected a finite number, found inf"),
        ("nan", "row 1 .*, column 'nan': expected a finite number, found no v"),
        ("null", r"row 1 \(from 0\), column 'null': expected a finite number"),
        ("huge", r"row 1 \(from 0\), column 'huge': too large for float32: 1e\+300"),
        ("struct", "column 'struct': expected a number, found type struct"),
    ],
)
def test_values_that_are_no_features(alone, tmp_path, name, message):
    path = written(tmp_path / "a.parquet", {name: WRONG[name], "y": [1, 2]})
    with pytest.raises(DataError, match="a.parquet, .*" + message):
        read_rows(path, alone, target="y", dtype="float32")


@pytest.mark.parametrize(
    "name, message",
    [
        ("list", "column 'list': expected text or numbers, found type list"),
        ("decimal", "column 'decimal': expected text or numbers, found type decimal"),
        ("bytes", "a.parquet: .*UTF-?8"),
        ("null", r"row 1 \(from 0\), column 'null': expected a category, found ''"),
    ],
)
def test_values_that_are_no_categories(alone, tmp_path, name, message):
    path = written(tmp_path / "a.parquet", {name: WRONG[name], "y": [1, 2]})
    with pytest.raises(DataError, match=message):
        read_rows(path, alone, target="y", categories=[name])


def test_columns_that_are_not_asked_for_may_have_any_type(alone, tmp_path):
    path = written(tmp_path / "a.parquet", WRONG | {"x": [1, 2], "y": [3, 4]})
    found = read_rows(path, alone, target="y", features=["x"])
    assert found.x.tolist() == [[1], [2]]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("group_rows", [1, 7, 1000])
def test_each_rank_has_its_rows_of_any_row_groups(comm, mpi_tmp_path, group_rows):
    n = 2 * BATCH_ROWS + 11 if group_rows == 1000 else 40
    x = np.arange(2.0 * n).reshape(n, 2)
    names = [mpi_tmp_path / f"{i}.parquet" for i in range(3)]
    if comm.rank == 0:
        for path, rows in zip(names, np.split(x, [n // 5, n // 2])):
            columns = {"a": rows[:, 0], "b": rows[:, 1], "y": rows[:, 0] % 5}
            written(path, columns, row_group_size=group_rows * (n // 40))
    comm.Barrier()
    found = read_rows(names, comm, target="y")
    start, stop = own_range(n, comm.rank, comm.size)
    assert (found.n, found.start, found.stop) == (n, start, stop)
    assert_array_equal(found.x, x[start:stop])
    assert_array_equal(found.y[:, 0], x[start:stop, 0] % 5)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "case, message",
    [
        ("truncated", "b.parquet: cannot be read as Parquet"),
        ("text", "b.parquet: cannot be read as Parquet"),
        ("damaged", "b.parquet: cannot be read as Parquet|b.parquet, row"),
        ("other", "b.parquet: lacks column 'x', unlike .*a.parquet"),
        ("type", r"b.parquet, row 0 \(from 0\), column 'x': expected a number"),
        ("doubled", "b.parquet: two columns have the name 'x'"),
        ("gone", "b.parquet: no such file"),
        ("folder", "b.parquet: expected a data file, found a folder|a folder without"),
    ],
)
def test_broken_files_are_named_on_every_rank(comm, mpi_tmp_path, case, message):
    paths = [mpi_tmp_path / "a.parquet", mpi_tmp_path / "b.parquet"]
    if comm.rank == 0:
        columns = {"x": np.arange(1000.0), "y": np.arange(1000)}
        for path in paths:
            written(path, columns, compression="zstd")
        data = bytearray(paths[1].read_bytes())
        if case == "truncated":
            paths[1].write_bytes(data[:-100])
        elif case == "text":
            paths[1].write_text("x,y\n1,2\n" * 9)
        elif case == "damaged":
            data[100:4000] = bytes(3900)
            paths[1].write_bytes(data)
        elif case == "other":
            written(paths[1], {"z": [1.0], "y": [1]})
        elif case == "type":
            written(paths[1], {"x": ["a"] * 1000, "y": np.arange(1000)})
        elif case == "doubled":
            table = pyarrow.table([[1.0], [2.0], [3.0]], names=["x", "x", "y"])
            written(paths[1], table)
        else:
            paths[1].unlink()
        if case == "folder":
            paths[1].mkdir()
    comm.Barrier()
    with pytest.raises(DataError, match=message):
        read_rows(paths, comm, target="y")


def test_no_rows_at_all_and_an_empty_file_among_others(alone, tmp_path):
    empty = written(tmp_path / "a.parquet", {"x": np.empty(0), "y": np.empty(0)})
    with pytest.raises(DataError, match="a.parquet: no rows"):
        read_rows(empty, alone, target="y")
    other = written(tmp_path / "b.parquet", {"x": [1.0], "y": [2.0]})
    with pytest.raises(DataError, match="a.parquet: no rows"):
        read_rows([other, empty], alone, target="y")
