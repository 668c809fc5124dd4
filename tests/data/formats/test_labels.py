"""One table for all formats: what is a label, what is missing, and what is neither."""

import numpy as np
import pytest

from pympi_train.data.formats.read import read_rows
from pympi_train.errors import DataError

MISSING = "expected a class label, found '.*'; remove the rows that have no label"
QUANTITY = "expected a class label, a whole .*found '.*'; .* choose a regression"

TOO_LARGE = r"found '.*': whole numbers have to be below 2\^63"

# Labels as they stand in a file, and what they are, or the words of the refusal.
TABLE = {
    "integers": (["1", "+2", "3.0", "1e3", "-4"], [1, 2, 3, 1000, -4]),
    "text": (["cat", "dog", "cat"], ["cat", "dog", "cat"]),
    "one text among numbers": (["1", "2", "x"], ["1", "2", "x"]),
    "not all of ASCII": (["é", "猫"], ["é", "猫"]),
    "names of digits": (["007", "01", "1"], ["007", "01", "1"]),
    "what Python alone takes for numbers": (["1_0", "0x1"], ["1_0", "0x1"]),
    "the largest": ([str(2**63 - 1)], [2**63 - 1]),
    "booleans": (["True", "FALSE", "true"], [1, 0, 1]),
    "booleans among others": (["True", "no"], ["True", "no"]),
    "words that begin as numbers": (["infant", "-", "1a"], ["infant", "-", "1a"]),
    "a fraction": (["1", "2.5"], QUANTITY),
    "fractions": (["103.01", "1e-3"], QUANTITY),
    "a fraction among text": (["low", "0.5"], QUANTITY),
    "beyond 64 bits": (["1", str(2**63)], TOO_LARGE),
    "a decimal that may have lost digits": (["1", f"{2**53}.0"], TOO_LARGE),
    "beyond floats": (["1", "1e400"], TOO_LARGE),
    "infinite": (["1", "inf"], QUANTITY),
    "minus infinity": (["1", "-Infinity"], QUANTITY),
    "NaN": (["1", "nan"], MISSING),
    "NA": (["a", "NA"], MISSING),
    "null": (["a", "NULL"], MISSING),
    "pandas' NA": (["1", "<NA>"], MISSING),
}
# What a word of LIBSVM cannot have.
BLANKS = {
    "blanks around": ([" 1", "2 ", "\u00a03"], [1, 2, 3]),
    "blanks around text": ([" a", "a", "a b "], ["a", "a", "a b"]),
    "empty": (["a", ""], MISSING),
    "blank": (["a", "  "], MISSING),
}


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def written(folder, suffix, labels):
    """Write a file of one feature and these labels; return how it is read."""
    ones = np.ones((len(labels), 1))
    if suffix == "csv":
        lines = "".join(f"1,{label}\n" for label in labels)
        (folder / "f.csv").write_text("a,y\n" + lines, "utf-8")
    elif suffix == "quoted.csv":
        lines = "".join(f'1,"{label}"\n' for label in labels)
        (folder / "f.quoted.csv").write_text('a,"y"\n' + lines, "utf-8")
    elif suffix == "svm":
        lines = "".join(f"{label} 1:1\n" for label in labels)
        (folder / "f.svm").write_text(lines, "utf-8")
    elif suffix == "npz":
        np.savez(folder / "f.npz", a=ones, y=np.array(labels))
    elif suffix == "bytes.npz":
        as_bytes = [label.encode("utf-8") for label in labels]
        np.savez_compressed(folder / "f.bytes.npz", a=ones, y=np.array(as_bytes))
    else:
        np.save(folder / "f.npy", ones)
        np.save(folder / "y.npy", np.array(labels))
    return folder / f"f.{suffix}", "y.npy" if suffix == "npy" else "y"


SUFFIXES = ["csv", "quoted.csv", "svm", "npz", "bytes.npz", "npy"]
POINTS = [(s, c) for s in SUFFIXES for c in (*TABLE, *BLANKS)]
POINTS = [(s, c) for s, c in POINTS if s != "svm" or c in TABLE]


@pytest.mark.parametrize("suffix, case", POINTS)
def test_labels(alone, tmp_path, suffix, case):
    labels, want = {**TABLE, **BLANKS}[case]
    path, target = written(tmp_path, suffix, labels)
    if isinstance(want, str):
        with pytest.raises(DataError, match=want):
            read_rows(path, alone, target=target, target_kind="label")
        return
    found = read_rows(path, alone, target=target, target_kind="label").y
    assert found.tolist() == want
    assert (found.dtype == np.int64) == (type(want[0]) is int)
    kept = read_rows(path, alone, target=target, target_kind="label", text_labels=True)
    assert kept.y.tolist() == [label.strip() for label in labels]


@pytest.mark.parametrize(
    "labels, want",
    [
        (np.array([True, False]), [1, 0]),
        (np.array([2.0, -1.0], dtype=np.float32), [2, -1]),
        (np.array([1.0, 2.5]), QUANTITY),
        (np.array([1.0, np.nan]), MISSING),
        (np.array([1.0, np.inf]), QUANTITY),
        (np.array([1, 2**63], dtype=np.uint64), TOO_LARGE),
        (np.array([1.0, 2.0**53]), TOO_LARGE),
        (np.array([0, 1], dtype=np.float16), [0, 1]),
        (np.array([1, 2**63 - 1], dtype=np.uint64), [1, 2**63 - 1]),
        (np.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
    ],
)
def test_numbers_in_arrays_are_as_their_texts(alone, tmp_path, labels, want):
    np.savez(tmp_path / "f.npz", a=np.ones((2, 1)), y=labels)
    if isinstance(want, str):
        with pytest.raises(DataError, match=r"row 1 \(from 0\): .*" + want):
            read_rows(tmp_path / "f.npz", alone, target="y", target_kind="label")
    else:
        found = read_rows(tmp_path / "f.npz", alone, target="y", target_kind="label")
        assert found.y.tolist() == want


@pytest.mark.parametrize(
    "suffix, place",
    [
        ("csv", r"f.csv, line 13, column 'y' \(number 2\): "),
        ("svm", "f.svm, line 12: "),
        ("npz", r"f.npz, array 'y', row 11 \(from 0\): "),
        ("npy", r"y.npy, row 11 \(from 0\): "),
    ],
)
def test_the_place_of_a_wrong_label_is_told(alone, tmp_path, suffix, place):
    path, target = written(tmp_path, suffix, ["1"] * 11 + ["0.5"] + ["2", "0.25"])
    with pytest.raises(DataError, match=place + QUANTITY):
        read_rows(path, alone, target=target, target_kind="label")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("suffix", ["csv", "svm", "npz"])
def test_ranks_agree_on_the_labels_of_all(comm, mpi_tmp_path, suffix):
    """One rank's texts spell integers, or booleans, and another's do not."""
    cases = {
        "boolean": (["True"] * 9 + ["False"], [1] * 9 + [0]),
        "text": (["True"] * 9 + ["2"], ["True"] * 9 + ["2"]),
        "fraction": (["1"] * 9 + ["0.5"], QUANTITY),
    }
    for name, (labels, want) in cases.items():
        folder = mpi_tmp_path / f"{name}.{suffix}"
        if comm.rank == 0:
            folder.mkdir()
            written(folder, suffix, labels)
        comm.Barrier()
        how = {"target": "y", "target_kind": "label"}
        if isinstance(want, str):
            with pytest.raises(DataError, match=want):
                read_rows(folder / f"f.{suffix}", comm, **how)
        else:
            rows = read_rows(folder / f"f.{suffix}", comm, **how)
            assert rows.y.tolist() == want[rows.start : rows.stop]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("suffix", ["csv", "svm", "npz"])
def test_a_label_of_another_kind_is_named_with_its_row(comm, mpi_tmp_path, suffix):
    """Where training rows have whole numbers; True and False are two of them."""
    if comm.rank == 0:
        written(mpi_tmp_path, suffix, ["True"] * 7 + ["maybe", "0"])
    comm.Barrier()
    how = {"target": "y", "target_kind": "label", "text_labels": False}
    message = r"row 7 \(from 0\) has the label 'maybe', which no training row has"
    with pytest.raises(DataError, match=message):
        read_rows(mpi_tmp_path / f"f.{suffix}", comm, **how)
    comm.Barrier()


def test_booleans_of_an_array_where_training_had_text(alone, tmp_path):
    np.savez(tmp_path / "f.npz", a=np.ones((2, 1)), y=np.array([True, False]))
    how = {"target": "y", "target_kind": "label", "text_labels": True}
    assert read_rows(tmp_path / "f.npz", alone, **how).y.tolist() == ["True", "False"]
