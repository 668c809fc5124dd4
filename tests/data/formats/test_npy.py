import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal

from pympi_train.data.formats.arrays.npy import stored_npy
from pympi_train.data.formats.arrays.stored import map_rows
from pympi_train.data.formats.read import read_rows
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npy")


kinds = st.sampled_from(["?", "i1", "<i8", ">i4", "u2", "<f2", ">f4", "f8", "U3", "S2"])
shapes = st.one_of(
    st.tuples(st.integers(0, 9)), st.tuples(st.integers(0, 9), st.integers(0, 4))
)


@given(st.data(), kinds, shapes, st.sampled_from("CF"), st.integers(1, 7))
def test_the_parts_of_all_ranks_are_the_array(
    folder, data, kind, shape, order, size
):
    elements = st.text("ab", max_size=2) if kind[0] == "U" else None
    values = data.draw(npst.arrays(kind, shape, elements=elements))
    array = np.array(values, order=order)
    path = str(folder / "a.npy")
    np.save(path, array)
    stored = stored_npy(path)
    cuts = [len(array) * rank // size for rank in range(size + 1)]
    parts = [map_rows(stored, *cut) for cut in zip(cuts, cuts[1:])]
    assert {part.dtype for part in parts} == {array.dtype}
    assert all(part.shape[1:] == array.shape[1:] for part in parts)
    assert b"".join(part.tobytes() for part in parts) == array.tobytes()


@pytest.mark.parametrize("order", "CF")
def test_own_rows_are_a_read_only_view_of_the_file(folder, order):
    path = str(folder / f"{order}.npy")
    array = np.arange(12.0).reshape(4, 3)
    np.save(path, np.asarray(array, order=order))
    part = map_rows(stored_npy(path), 1, 3)
    assert_array_equal(part, array[1:3])
    assert not part.flags.owndata and not part.flags.writeable
    with open(path, "r+b") as file:  # what the file says now, the view says
        file.seek(-8 * (12 - 3 if order == "C" else 12 - 1), os.SEEK_END)
        file.write(struct.pack("<d", 77.0))
    assert part[0, 0] == 77.0


def test_features_and_target_in_two_files(alone, tmp_path):
    x, y = np.arange(6, dtype=np.int16), np.array([[1, 2], [3, 4]] * 3)
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "sub" / "y.npy", y)
    for target in ("sub/y.npy", str(tmp_path / "sub" / "y.npy")):
        rows = read_rows(tmp_path / "x.npy", alone, target=target)
        assert (rows.n, rows.start, rows.stop) == (6, 0, 6)
        assert_array_equal(rows.x, x[:, None])  # one dimension is one column
        assert rows.x.dtype == np.int16
        assert_array_equal(rows.y, y)
        assert rows.y.dtype == np.float64
        assert rows.feature_names is None


def test_an_absent_target_is_none_where_it_is_not_needed(alone, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    for target in (None, "no.npy"):
        rows = read_rows(tmp_path / "x.npy", alone, target=target, need_target=False)
        assert rows.y is None
        with pytest.raises(DataError, match="no target; set target|no.npy: no such"):
            read_rows(tmp_path / "x.npy", alone, target=target)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.array([1, None]), [1, 2], "x.npy: holds Python objects"),
        (np.ones(2, dtype=complex), [1, 2], "expected real numbers, text or dates"),
        (np.ones(2, dtype="i4,f8"), [1, 2], "expected real numbers, text or dates"),
        (np.empty(2, dtype="V0").view("U0"), [1, 2], "found dtype <U0"),
        (np.ones(2, dtype="M8[s]"), [1, 2], "found dtype datetime64"),
        (np.ones((2, 2, 2)), [1, 2], r"expected shape \(rows,\) or .*\(2, 2, 2\)"),
        (np.ones(()), [1, 2], r"expected shape \(rows,\)"),
        (np.array(["a", "b"]), [1, 2], "expected numbers, found dtype <U1"),
        (np.ones((2, 0)), [1, 2], "no columns"),
        (np.ones((0, 2)), np.ones(0), "x.npy: no rows"),
        (np.ones(2), [1, 2, 3], "y.npy: 3 rows, but .*x.npy has 2"),
        (np.ones(2), ["a", "b"], "y.npy: expected numbers, found dtype <U1"),
        ([[1, 2], [3, np.nan]], [1, 2], "row 1, column 1 .* found nan"),
        ([1, 2], [1, np.inf], "y.npy, row 1, column 0 .* found inf"),
    ],
)
def test_arrays_that_are_refused(alone, tmp_path, x, y, message):
    np.save(tmp_path / "x.npy", x, allow_pickle=True)
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "x.npy", alone, target="y.npy")


def test_features_have_no_names_here(alone, tmp_path):
    np.save(tmp_path / "x.npy", np.ones(2))
    with pytest.raises(DataError, match="leave features out"):
        read_rows(tmp_path / "x.npy", alone, features=["a"], need_target=False)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: data[:-1], "the file ends early: expected 144 bytes"),
        (lambda data: b"", "not an .npy array"),
        (lambda data: b"1,2\n" * 50, "not an .npy array"),
        (lambda data: data[:40], "not an .npy array"),
        (lambda data: data.replace(b"'descr'", b"'x'    "), "not an .npy array"),
        (lambda data: data[:6] + b"\x03" + data[7:], "version 3.0"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    path = tmp_path / "x.npy"
    np.save(path, np.ones(2))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        stored_npy(str(path))


@pytest.mark.parametrize(
    "header",
    [
        "{",
        "{[]: 1}",
        "{'descr': (), 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + 3000 * "-" + "1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0x" + 8000 * "f" + ",), }",
    ],
)
def test_a_malformed_header(tmp_path, header):
    path, data = tmp_path / "x.npy", header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data)
    with pytest.raises(DataError, match="x.npy: not an .npy array"):
        stored_npy(str(path))


def test_header_of_version_2(tmp_path):
    path = tmp_path / "x.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.arange(3), version=(2, 0))
    assert_array_equal(map_rows(stored_npy(str(path)), 1, 3), [1, 2])


def test_a_value_that_is_not_finite_is_found_in_every_block():
    values = np.zeros((5000, 100))  # several blocks
    require_finite(values, "f", 0)
    for row, column in [(0, 0), (1310, 99), (4999, 7)]:
        values[row, column] = np.nan
        with pytest.raises(DataError, match=f"f, row {row + 9}, column {column} "):
            require_finite(values, "f", 9)
        values[row, column] = 0


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("n_rows", [1, 11])  # 1: ranks without a row
def test_the_ranks_together_hold_the_array(comm, mpi_tmp_path, order, n_rows):
    x = np.random.default_rng(0).standard_normal((n_rows, 3))
    labels = np.array([b"\xc3\xa9", b"b", b"long"] * 4)[:n_rows]
    if comm.rank == 0:
        np.save(mpi_tmp_path / "x.npy", np.asarray(x, order=order))
        np.save(mpi_tmp_path / "y.npy", labels)
    comm.Barrier()
    path = mpi_tmp_path / "x.npy"
    rows = read_rows(path, comm, target="y.npy", target_kind="label")
    own = slice(comm.rank * n_rows // comm.size, (comm.rank + 1) * n_rows // comm.size)
    assert (rows.n, rows.start, rows.stop) == (n_rows, own.start, own.stop)
    assert_array_equal(rows.x, x[own])
    assert rows.x.shape[1] == 3
    assert rows.y.tolist() == [label.decode() for label in labels[own]]
    assert comm.allgather(rows.y.dtype.kind) == [rows.y.dtype.kind] * comm.size


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("row", [0, 9])
def test_a_bad_value_on_one_rank_raises_on_all(comm, mpi_tmp_path, row):
    x = np.ones((10, 2))
    x[row, 1] = np.inf
    if comm.rank == 0:
        np.save(mpi_tmp_path / "x.npy", x)
    comm.Barrier()
    with pytest.raises(DataError, match=f"x.npy, row {row}, column 1"):
        read_rows(mpi_tmp_path / "x.npy", comm, need_target=False)
    comm.Barrier()
