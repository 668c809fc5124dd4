"""Several files are one data set: the rows of all, in order, on any ranks."""

import gzip

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from named_arrays import save_arrays
from numpy.testing import assert_array_equal
from pyarrow import parquet

from pympi_train.data.formats.arrays.stacked import StackedRows
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError

SUFFIXES = ("csv", "csv.gz", "tsv.zst", "svm", "svm.gz", "npy", "npz")
SUFFIXES += ("compressed.npz", "h5", "zarr", "parquet")


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def write_text(path, text):
    """Write text, compressed as the suffix says, in two parts."""
    half = len(text) // 2
    parts = [text[:half].encode(), text[half:].encode()]
    if path.suffix == ".gz":
        parts = map(gzip.compress, parts)
    elif path.suffix == ".zst":
        parts = [pyarrow.compress(part, "zstd", asbytes=True) for part in parts]
    path.write_bytes(b"".join(parts))


def write(folder, suffix, i, x, y):
    """Write the i-th file of a data set; return the target's name in it."""
    path = folder / f"part{i}.{suffix}"
    if suffix == "parquet":
        columns = [*zip("abc", x.T), ("y", y)][:: -1 if i % 2 else 1]
        parquet.write_table(pyarrow.table(dict(columns)), path, row_group_size=2)
        return "y"
    if suffix[:3] in ("csv", "tsv"):
        # The order of columns differs between files.
        columns = [*zip("abc", x.T), ("y", y)][:: -1 if i % 2 else 1]
        rows = np.column_stack([column for _, column in columns]).tolist()
        lines = [[name for name, _ in columns]] + [map(repr, row) for row in rows]
        separator = "\t" if suffix[0] == "t" else ","
        write_text(path, "\n".join(map(separator.join, lines)))
        return "y"
    if suffix[:3] == "svm":
        pairs = [[f"{j}:{v!r}" for j, v in enumerate(row, 1)] for row in x.tolist()]
        lines = [f"{k} {' '.join(row)}\n" for k, row in zip(y.tolist(), pairs)]
        write_text(path, "".join(lines))
        return None
    if suffix == "npy":
        np.save(path, np.asarray(x, order="FC"[i % 2]))
        np.save(folder / f"target{i}.npy", y)
        return "target*.npy"
    save_arrays(path, {"X": x, "y": y}, compressed="compressed" in suffix)
    return "y"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["number", "label"])
@pytest.mark.parametrize("counts", [[4, 1, 9], [1] * 11, [2, 1]])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_of_all_files_in_order(comm, mpi_tmp_path, suffix, counts, kind):
    rng = np.random.default_rng(0)
    n = sum(counts)
    x, y = rng.standard_normal((n, 3)), rng.integers(3, size=n)
    target, ends = None, np.cumsum(counts)
    for i, (end, count) in enumerate(zip(ends, counts)):
        rows = slice(end - count, end)
        if comm.rank == 0:
            target = write(mpi_tmp_path, suffix, i, x[rows], y[rows])
    target = comm.bcast(target, root=0)
    pattern = str(mpi_tmp_path / "part*")
    found = read_rows(pattern, comm, target=target, target_kind=kind)
    start, stop = own_range(n, comm.rank, comm.size)
    assert (found.n, found.start, found.stop) == (n, start, stop)
    assert_array_equal(found.x[:], x[start:stop])
    assert_array_equal(np.ravel(found.y), y[start:stop])
    if suffix in ("npy", "npz", "h5"):
        for rows in (slice(0, n), slice(1, 2), slice(n, n)):
            assert_array_equal(found.reach(rows.start, rows.stop)[:], x[rows])


@pytest.mark.mpi(min_size=2)
def test_text_labels_of_several_files(comm, mpi_tmp_path):
    for i, word in enumerate("aba"):
        if comm.rank == 0:
            text = np.array([word] * (2 + i))
            np.savez(mpi_tmp_path / f"{i}.npz", X=np.zeros((2 + i, 2)), y=text)
    comm.Barrier()
    found = read_rows(mpi_tmp_path, comm, target="y", target_kind="label").y
    assert sum(comm.allgather(found.tolist()), []) == list("aabbbaaaa")


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_the_file_of_a_wrong_value_is_named(alone, tmp_path, suffix):
    x, y = np.zeros((2, 3)), np.array([0, 1])
    for i in range(3):
        x[1, 1] = np.nan if i == 2 else 0
        write(tmp_path, suffix, i, x, y)
    place = "part2.csv, line 3, column 'b'" if suffix == "csv" else (
        r"part2.npz, array 'X', row 1, column 1"
    )
    with pytest.raises(DataError, match=place):
        read_rows(tmp_path, alone, target="y")


def test_order_is_natural_and_hidden_files_are_no_data(alone, tmp_path):
    names = ["p10.csv", "p2.csv", "p1.csv", ".p3.csv", "_p4.csv", "README.md"]
    for name in names:
        (tmp_path / name).write_text("a,y\n1,2\n")
    found = find_files(tmp_path, alone)
    assert [path.rpartition("/")[2] for path in found.paths] == [
        "p1.csv",
        "p2.csv",
        "p10.csv",
    ]
    assert found.name == str(tmp_path) and found.format == "csv"
    assert find_files(tmp_path / "p*.csv", alone).paths == found.paths
    given = [tmp_path / "p10.csv", str(tmp_path / "p[12].csv")]
    assert [path[-6] for path in find_files(given, alone).paths] == ["1", "p", "p"]
    (tmp_path / "p[1].csv").write_text("a,y\n1,2\n")
    assert len(find_files(tmp_path / "p[1].csv", alone).paths) == 1


@pytest.mark.parametrize(
    "given, message",
    [
        ([], "expected the name of a data file, got an empty list"),
        ("no*.csv", r"no\*.csv: no file has a name of this pattern"),
        ("sub", "sub: a folder without data files; expected names that end in .npz"),
        (["a.csv", "a.svm"], "a.svm: the files of a data set have one format"),
        (["a.csv", "./a.csv"], "a.csv: comes twice among the files of 'a.csv and 1 m"),
        (["a.csv", "b.csv"], "b.csv: lacks column 'a', unlike a.csv"),
        (["a.csv", "c.csv"], "c.csv: has column 'c', unlike a.csv"),
        (["a.csv", "d.csv"], "d.csv: no rows"),
        (["a.csv", "gone.csv"], "gone.csv: no such file"),
        (["a.npz", "b.npz"], r"b.npz: the features are the arrays 'Z', unlike in a."),
        (["a.npz", "c.npz"], r"c.npz, array 'X': rows of shape \(3,\), but a.npz"),
    ],
)
def test_refused(alone, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    texts = {"a": "a,y\n1,2\n", "b": "b,y\n1,2\n", "c": "a,y,c\n1,2,3\n", "d": "a,y\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "a.svm").write_text("1 1:1\n")
    np.savez("a.npz", X=np.zeros((2, 2)), y=np.zeros(2))
    np.savez("b.npz", Z=np.zeros((2, 2)), y=np.zeros(2))
    np.savez("c.npz", X=np.zeros((2, 3)), y=np.zeros(2))
    with pytest.raises(DataError, match=message):
        read_rows(given, alone, target="y")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_stacked_rows_are_indexed_as_one_array(counts, data):
    n = sum(counts)
    whole = np.arange(3.0 * n).reshape(n, 3)
    stops = np.cumsum(counts)
    stacked = StackedRows(np.split(whole, stops[:-1]), "f8")
    start, stop = sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=6)) if n else []
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    for index in (slice(start, stop), np.array(rows, np.intp), mask):
        assert_array_equal(stacked[index], whole[index])
        assert_array_equal(stacked[index, 1:2], whole[index, 1:2])
    assert stacked.shape == whole.shape and len(stacked) == n


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_streamed_files_have_the_rows_of_files_in_memory(
    comm, mpi_tmp_path, suffix
):
    rng = np.random.default_rng(0)
    counts = [4, 1, 9]
    x, y = rng.standard_normal((14, 3)), rng.integers(3, size=14)
    for i, (end, count) in enumerate(zip(np.cumsum(counts), counts)):
        rows = slice(end - count, end)
        if comm.rank == 0:
            write(mpi_tmp_path, suffix, i, x[rows], y[rows])
    comm.Barrier()
    pattern = str(mpi_tmp_path / "part*")
    how = {"target": "y", "target_kind": "label"}
    found = read_rows(pattern, comm, **how, is_streamed=True)
    start, stop = own_range(14, comm.rank, comm.size)
    assert isinstance(found.x, StreamedRows) and found.x.n_decoded == 0
    assert_array_equal(found.x[:], x[start:stop])
    assert_array_equal(found.y, y[start:stop])
    if suffix == "parquet":
        assert_array_equal(found.reach(3, 14)[:], x[3:14])
    text = read_rows(pattern, comm, **how, categories=["a"], is_streamed=True)
    plain = read_rows(pattern, comm, **how, categories=["a"])
    assert_array_equal(text.x[:], plain.x)
    assert_array_equal(text.x[:, 0], plain.x[:, 0])


@pytest.mark.mpi(min_size=2)
def test_a_compressed_file_is_not_streamed(comm, mpi_tmp_path):
    if comm.rank == 0:
        write(mpi_tmp_path, "csv.gz", 0, np.ones((2, 3)), np.arange(2))
    comm.Barrier()
    with pytest.raises(DataError, match='csv.gz: memory = "stream" is for files'):
        read_rows(mpi_tmp_path / "part0.csv.gz", comm, target="y", is_streamed=True)
