import numpy as np
import pyarrow
import pytest
from named_arrays import save_arrays
from pyarrow import parquet

from pympi_train.comm.checks import on_root
from pympi_train.data.formats.label_column import LabelColumn, as_integer
from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.rows import listed, shown
from pympi_train.data.formats.selection import Selection
from pympi_train.errors import DataError

FORMATS = (".npz", ".npy", ".csv", ".svm", ".libsvm")  # that training reads


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return np.round(rng.standard_normal((17, 3)), 6), np.arange(17) % 4 - 1


def write(folder, suffix, x, y):
    """Write a data set in one of the formats; return its path and the target."""
    path = folder / f"data{suffix}"
    if suffix in (".npz", ".h5", ".hdf5", ".zarr"):
        save_arrays(path, {"X": x, "y": y})
    elif suffix == ".npy":
        np.save(path, x)
        np.save(folder / "y.npy", y)
        return path, "y.npy"
    elif suffix in (".csv", ".tsv"):
        rows = [[*row, label] for row, label in zip(x.tolist(), y.tolist())]
        lines = [list("abcy")] + [map(repr, row) for row in rows]
        separator = "," if suffix == ".csv" else "\t"
        path.write_text("\n".join(map(separator.join, lines)))
    elif suffix in (".parquet", ".pq"):
        table = pyarrow.table([*x.T, y], names=list("abcy"))
        parquet.write_table(table, path, row_group_size=4)
    else:
        with open(path, "w") as file:
            for row, label in zip(x.tolist(), y.tolist()):
                pairs = " ".join(f"{j + 1}:{v!r}" for j, v in enumerate(row))
                file.write(f"{label} {pairs}\n")
    return path, "y"


@pytest.mark.parametrize("kind", ["label", "number"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_rows(alone, tmp_path, table, suffix, kind):
    x, y = table
    path, target = write(tmp_path, suffix, x, y)
    rows = read_rows(path, alone, target=target, target_kind=kind)
    assert (rows.n, rows.start, rows.stop) == (17, 0, 17)
    assert np.asarray(rows.x).tobytes() == x.tobytes()
    assert rows.y.tolist() == (y if kind == "label" else y[:, None]).tolist()
    assert rows.y.dtype == ("int64" if kind == "label" else "float64")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_each_rank_its_rows(comm, mpi_tmp_path, table, suffix):
    x, y = table
    if comm.rank == 0:
        write(mpi_tmp_path, suffix, x, y)
    comm.Barrier()
    target = "y.npy" if suffix == ".npy" else "y"
    path = mpi_tmp_path / f"data{suffix}"
    rows = read_rows(path, comm, target=target)
    own = slice(comm.rank * 17 // comm.size, (comm.rank + 1) * 17 // comm.size)
    assert (rows.n, rows.start, rows.stop) == (17, own.start, own.stop)
    assert np.asarray(rows.x).tobytes() == x[own].tobytes()
    assert rows.y.tolist() == y[own, None].tolist()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_rank_without_rows_has_arrays_of_the_right_width(comm, mpi_tmp_path, suffix):
    x, y = np.array([[1.5, 2.5, 3.5]]), np.array([7])
    if comm.rank == 0:
        write(mpi_tmp_path, suffix, x, y)
    comm.Barrier()
    target = "y.npy" if suffix == ".npy" else "y"
    path = mpi_tmp_path / f"data{suffix}"
    last = comm.rank == comm.size - 1
    for kind, shape, dtype in [("label", (last,), "i8"), ("number", (last, 1), "f8")]:
        rows = read_rows(path, comm, target=target, target_kind=kind)
        assert rows.n == 1 and rows.stop - rows.start == last
        assert rows.x.shape == (last, 3) and rows.x.dtype == np.float64
        assert rows.y.shape == shape and rows.y.dtype == dtype


def test_suffix_may_be_in_capitals(alone, tmp_path, table):
    path, _ = write(tmp_path, ".csv", *table)
    capital = path.rename(tmp_path / "DATA.CSV")
    assert read_rows(capital, alone, target="y").n == 17


@pytest.mark.parametrize(
    "name, message",
    [
        ("a.txt", r"a.txt: unknown format '.txt'; expected one of .npz, .npy, .csv"),
        ("a", r"a: no such file or folder"),
        ("no.csv", r"no.csv: no such file"),
        ("no.svm", r"no.svm: no such file"),
        ("folder.npz", r"folder.npz: a folder without data files; expected names"),
    ],
)
def test_files_that_are_none(alone, tmp_path, name, message):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name, alone, target="y")


def test_target_kind_is_a_known_one(alone):
    with pytest.raises(ValueError, match="must be 'number' or 'label', got 'class'"):
        read_rows("a.csv", alone, target="y", target_kind="class")


@pytest.mark.mpi(min_size=2)
def test_a_missing_file_raises_on_every_rank(comm, mpi_tmp_path):
    with pytest.raises(DataError, match="no.npy: no such file"):
        read_rows(mpi_tmp_path / "no.npy", comm, target="y.npy")
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_on_root_gives_all_ranks_what_rank_0_finds(comm):
    assert on_root(comm, lambda: comm.rank + 5) == 5

    def fail():
        raise DataError("only here")

    with pytest.raises(DataError, match="only here"):
        on_root(comm, fail)
    comm.Barrier()


@pytest.mark.parametrize(
    "text, value",
    [
        ("0", 0),
        ("-7", -7),
        ("+1", 1),
        (" 3\t", 3),
        ("007", None),
        ("00", None),
        ("01.0", None),
        ("-0", 0),
        ("1.5e1", 15),
        ("2.000000000000000000e+00", 2),
        ("0.99999999999999999999", None),
        ("9007199254740991.0", 2**53 - 1),
        ("9007199254740993.0", None),
        ("1e-99999999999999999999", None),
        ("1.", 1),
        ("2.000", 2),
        ("1e3", 1000),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), None),
        ("1e19", None),
        ("1e999", None),
        ("1" * 5000, None),
        ("1.5", None),
        ("1_0", None),
        ("٣", None),
        ("0x1", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (".", None),
        ("cat", None),
    ],
)
def test_integer_that_a_label_spells(text, value):
    assert as_integer(text) == value


@pytest.mark.mpi(min_size=2)
def test_ranks_agree_on_the_kind_of_labels(comm):
    last = comm.rank == comm.size - 1
    column = LabelColumn(3)
    column.put(0, ["1", "2"])
    column.put(2, ["three" if last else "1"])
    found = column.agree(comm, "f")
    assert found.tolist() == ["1", "2", "three" if last else "1"]
    assert found.dtype.kind == "U"
    empty = LabelColumn(0 if last else 1)
    empty.put(0, [] if last else ["5"])
    found = empty.agree(comm, "f")
    assert found.tolist() == ([] if last else [5]) and found.dtype == np.int64
    with pytest.raises(DataError, match="f: row 2 .* has the label 'three'"):
        column.agree(comm, "f", text_labels=False)
    comm.Barrier()


def test_choose():
    present = ["a", "b", "y"]

    def chosen(features, target, need_target=True, **more):
        selection = Selection(features, target, need_target=need_target, **more)
        return selection.choose("f", "column", present)

    assert chosen(None, "y") == (None, ["y"], [], [], ["a", "b"])
    assert chosen("b", ["y", "a"]) == (["b"], ["y", "a"], [], [], ["b"])
    assert chosen("b", "z", False)[:2] == (["b"], [])
    assert chosen("b", None, False)[:2] == (["b"], [])
    assert chosen(None, "y", weights="a")[2:] == (["a"], [], ["b"])
    assert chosen(None, "y", weights="a", need_weights=False)[2:] == ([], [], ["b"])
    assert chosen(None, "y", drop="a", others=["b"])[3:] == (["b"], [])


@pytest.mark.parametrize(
    "more, words",
    [
        ({"features": ["a", "a"]}, "feature column 'a' is named twice"),
        ({"features": ["y"]}, "'y' is both feature and target"),
        ({"weights": "y"}, "'y' is both target and weights"),
        ({"drop": ["a"], "features": ["a"]}, "'a' is both feature and dropped"),
        ({"drop": ["c"]}, "no dropped column 'c'; .*present: 'a', 'b', 'y'"),
        ({"weights": "c"}, "no weights column 'c'"),
        ({"others": ["c"]}, "no column 'c'"),
        ({"categories": ["y"]}, "categorical column 'y' is not among the features"),
        ({"dates": ["c"]}, "dates column 'c' is not among the features"),
        ({"categories": ["a"], "dates": ["a"]}, "'a' is named twice among categ"),
    ],
)
def test_a_column_has_one_use(more, words):
    with pytest.raises(DataError, match=words):
        selection = Selection(**{"target": "y", **more})
        chosen = selection.choose("f", "column", ["a", "b", "y"])
        selection.places("f", "column", chosen.features or chosen.rest)


def test_only_a_near_name_is_said_to_be_close():
    with pytest.raises(DataError, match="no target column 'Lable'; .* is 'label';"):
        Selection(target="Lable").choose("f", "column", ["a", "label"])
    with pytest.raises(DataError, match="no target column 'price'; present: 'a', 'b'"):
        Selection(target="price").choose("f", "column", ["a", "b"])


def test_lists_and_texts_in_messages_are_short():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([]) == "none"
    assert listed(list("abcde"), limit=2) == "'a', 'b' and 3 more"
    assert shown("x" * 99) == repr("x" * 40 + "...")
    assert shown("x\n") == r"'x\n'"
