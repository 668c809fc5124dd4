import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data.formats.arrays.compressed import decompress_rows, share_rows
from pympi_train.data.formats.arrays.npz import stored_arrays
from pympi_train.data.formats.read import read_rows
from pympi_train.data.partition import bounds
from pympi_train.errors import DataError

save = {"stored": np.savez, "compressed": np.savez_compressed}
ways = pytest.mark.parametrize("way", save)


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npz")


@given(
    st.sampled_from(["stored", "compressed"]),
    st.sampled_from([(7,), (7, 3), (0, 2), (2, 0), (1, 1)]),
    st.sampled_from(["f4", ">i8", "U3", "?"]),
    st.sampled_from("CF"),
    st.integers(1, 9),
)
def test_the_parts_of_all_ranks_are_the_array(folder, way, shape, kind, order, size):
    array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    path = str(folder / "a.npz")
    save[way](path, before=np.ones(3), a=np.asarray(array, order=order))
    stored = stored_arrays(path)["a"]
    cuts = [len(array) * rank // size for rank in range(size + 1)]
    parts = [stored.fetch(*cut) for cut in zip(cuts, cuts[1:])]
    assert {part.dtype for part in parts} == {array.dtype}
    assert all(part.shape[1:] == array.shape[1:] for part in parts)
    assert b"".join(part.tobytes() for part in parts) == array.tobytes()


def test_stored_arrays_are_mapped_and_not_read(folder):
    path = str(folder / "mapped.npz")
    np.savez(path, a=np.ones((8, 2)))
    part = stored_arrays(path)["a"].fetch(2, 4)
    assert not part.flags.owndata and not part.flags.writeable


@pytest.mark.parametrize("order", "CF")
def test_a_compressed_array_takes_memory_for_own_rows_alone(folder, order):
    path = str(folder / "large.npz")
    large = np.random.default_rng(0).integers(0, 9, (500_000, 8))  # 32 MB
    np.savez_compressed(path, a=np.asarray(large, order=order))
    stored = stored_arrays(path)["a"]
    tracemalloc.start()
    try:
        part = decompress_rows(stored, 400_000, 450_000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_array_equal(part, large[400_000:450_000])
    assert part.nbytes <= peak_bytes < part.nbytes + (5 << 20)


@ways
def test_arrays_are_chosen_and_put_side_by_side(alone, tmp_path, way):
    path = tmp_path / "a.npz"
    a, b = np.arange(4), np.arange(8.0).reshape(4, 2)
    save[way](path, a=a, y=a + 1, b=b, other=np.ones(3), one=5, z=a * 2)
    rows = read_rows(path, alone, features=["b", "a"], target="y")
    assert_array_equal(rows.x, np.column_stack([b, a]))
    assert_array_equal(rows.y, (a + 1)[:, None])
    assert rows.feature_names == ("b", "a")
    # Left out: those whose first dimension is that of the target.
    rows = read_rows(path, alone, target=["z", "y"])
    assert rows.feature_names == ("a", "b")
    assert_array_equal(rows.y, np.column_stack([2 * a, a + 1]))
    assert read_rows(path, alone, features="b", target="y").x.shape == (4, 2)


@ways
@pytest.mark.parametrize(
    "labels, want",
    [
        (np.array([250, 3], dtype=np.uint8), [250, 3]),
        (np.array([2.0, -1.0], dtype=np.float32), [2, -1]),
        (np.array(["1", "b"]), ["1", "b"]),
        (np.array(["1", "2"]), [1, 2]),
        (np.array([b"\xc3\xa9", b"b"]), ["é", "b"]),
        (np.array([[5], [6]]), [5, 6]),
    ],
)
def test_labels(alone, tmp_path, way, labels, want):
    path = tmp_path / "a.npz"
    save[way](path, X=np.ones((2, 2)), y=labels)
    rows = read_rows(path, alone, target="y", target_kind="label")
    assert rows.y.tolist() == want
    assert rows.y.dtype.kind in "iU"
    text = read_rows(path, alone, target="y", target_kind="label", text_labels=True)
    assert text.y.tolist() == [str(label) for label in want]


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([1.0, 2.5]), r"row 1 \(from 0\): expected a class .* found '2.5'"),
        (np.array([np.nan, 2.0]), r"row 0 \(from 0\).* found 'nan'"),
        (np.array([1.0, 2.0**63]), r"row 1 \(from 0\).* found '9.2"),
        (np.array([1.0, -(2.0**64)]), r"row 1 \(from 0\).* found '-1.8"),
        (np.array([1, 2**63], dtype=np.uint64), r"row 1 \(from 0\).* found '9223"),
        (np.array([b"a", b"\xff"]), r"row 1 \(from 0\): .*not UTF-8"),
        (np.ones((2, 3)), r"expected one value a row, .*argmax"),
        (np.array([1, None]), "holds Python objects"),
    ],
)
def test_labels_that_are_refused(alone, tmp_path, labels, message):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.ones((2, 2)), y=labels, allow_pickle=True)
    with pytest.raises(DataError, match=f"a.npz, array 'y'.*{message}"):
        read_rows(path, alone, features="X", target="y", target_kind="label")


def test_text_where_integers_are_needed(alone, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.ones((2, 2)), y=np.array(["1", "b"]))
    with pytest.raises(DataError, match="row 1 .* has the label 'b', which"):
        read_rows(path, alone, target="y", target_kind="label", text_labels=False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "Y"}, "no target array 'Y'; the closest is 'y'; present: 'X', "),
        ({"features": "x"}, "no feature array 'x'; the closest is 'X'"),
        ({"features": ["X", "y"]}, "'y' is both feature and target"),
        ({"features": ["X", "odd"]}, "array 'X': 4 rows.*|array 'odd': 3 rows, but"),
        ({"features": ["cube"]}, r"array 'cube': expected shape .*\(4, 1, 1\)"),
        (
            {"features": "X", "target": ["y", "z"], "target_kind": "label"},
            "expected one target that holds class labels, got 2",
        ),
    ],
)
def test_arrays_that_cannot_be_had(alone, tmp_path, options, message):
    path = tmp_path / "a.npz"
    ones = np.ones(4)
    arrays = {"odd": np.ones(3), "cube": np.ones((4, 1, 1)), "z": ones}
    np.savez(path, X=ones, y=ones, **arrays)
    with pytest.raises(DataError, match=message):
        read_rows(path, alone, **({"target": "y"} | options))


def test_without_a_target_lengths_have_to_agree(alone, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.ones((4, 2)))
    assert read_rows(path, alone, target="y", need_target=False).y is None
    np.savez(path, X=np.ones((4, 2)), ids=np.ones(3))
    with pytest.raises(DataError, match="arrays of different lengths.*set features"):
        read_rows(path, alone, need_target=False)
    np.savez(path, y=np.ones(4), other=np.ones(3))
    with pytest.raises(DataError, match="'other' has 3 rows, 'y' 4$"):
        read_rows(path, alone, target="y")


def test_members_that_are_no_arrays_are_left_alone(alone, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.ones((2, 2)), y=np.ones(2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    assert read_rows(path, alone, target="y").x.shape == (2, 2)


@ways
def test_a_damaged_archive_is_named(alone, tmp_path, way):
    path = tmp_path / "a.npz"
    save[way](path, X=np.random.default_rng(0).random((200, 2)), y=np.ones(200))
    whole = path.read_bytes()
    for damaged in (b"", b"PK" * 50, whole[: len(whole) // 2], b"x,y\n1,2\n"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="a.npz: not a complete .npz archive"):
            read_rows(path, alone, target="y")
    if way == "compressed":
        path.write_bytes(whole[:200] + b"\xff" * 1000 + whole[1200:])
        with pytest.raises(DataError, match="a.npz"):
            read_rows(path, alone, target="y")


@ways
def test_a_header_that_promises_more_than_there_is(alone, tmp_path, way):
    path = tmp_path / "a.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9), }"
    member = b"\x93NUMPY\x01\x00" + bytes([len(header) + 1, 0]) + header + b"\n"
    kind = zipfile.ZIP_STORED if way == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("X.npy", member + bytes(8 * 80))
        archive.writestr("more.bin", bytes(999))
    with pytest.raises(DataError, match="array 'X': .*(ends early|EOF)"):
        read_rows(path, alone, need_target=False)


@pytest.mark.mpi(min_size=2)
@ways
@pytest.mark.parametrize("n_rows", [1, 11])  # 1: ranks without a row
def test_the_ranks_together_hold_the_arrays(comm, mpi_tmp_path, way, n_rows):
    x = np.random.default_rng(0).standard_normal((n_rows, 3)).astype("f4")
    y = np.arange(n_rows)
    path = mpi_tmp_path / "a.npz"
    if comm.rank == 0:
        save[way](path, X=x, y=y)
    comm.Barrier()
    rows = read_rows(path, comm, target="y", target_kind="label")
    own = slice(comm.rank * n_rows // comm.size, (comm.rank + 1) * n_rows // comm.size)
    assert (rows.n, rows.start, rows.stop) == (n_rows, own.start, own.stop)
    assert_array_equal(rows.x, x[own])
    assert rows.x.shape[1] == 3 and rows.x.dtype == np.float32
    assert_array_equal(rows.y, y[own])
    assert rows.y.dtype == np.int64


@pytest.mark.mpi(min_size=2)
def test_a_label_that_one_rank_refuses_is_refused_on_all(comm, mpi_tmp_path):
    path = mpi_tmp_path / "a.npz"
    if comm.rank == 0:
        np.savez(path, X=np.ones((9, 1)), y=np.array([1.0] * 8 + [0.5]))
    comm.Barrier()
    with pytest.raises(DataError, match=r"row 8 \(from 0\): expected a class label"):
        read_rows(path, comm, target="y", target_kind="label")
    comm.Barrier()


@ways
def test_a_target_without_rows_is_blamed(alone, tmp_path, way):
    path = tmp_path / "a.npz"
    save[way](path, X=np.ones((4, 2)), y=np.array(3))
    with pytest.raises(DataError, match=r"array 'y': expected shape \(rows,\)"):
        read_rows(path, alone, target="y")


@ways
@pytest.mark.parametrize("n", ["-4", "9" * 30, "5"])
def test_a_header_that_promises_the_impossible(tmp_path, way, n):
    out = io.BytesIO()
    np.save(out, np.ones(4))
    data = out.getvalue().replace(b"(4,), }" + b" " * len(n), f"({n},), }} ".encode())
    kind = zipfile.ZIP_STORED if way == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "a.npz", "w", kind) as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(DataError, match="array 'a'.*(negative or too|ends early)"):
        stored_arrays(str(tmp_path / "a.npz"))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("piece_bytes", [1, 48, 1 << 20])
@pytest.mark.parametrize(
    "shape, order, dtype",
    [
        ((11,), "C", "f8"),
        ((11, 3), "C", "i2"),
        ((11, 3), "F", "f4"),
        ((2, 3), "C", "f8"),  # fewer rows than ranks
        ((7,), "C", "U5"),
        ((11, 0), "C", "f8"),
    ],
)
def test_one_rank_decompresses_for_all(
    comm, mpi_tmp_path, shape, order, dtype, piece_bytes
):
    path = mpi_tmp_path / "a.npz"
    whole = np.arange(np.prod(shape)).reshape(shape).astype(dtype, order=order)
    if comm.rank == 0:
        np.savez_compressed(path, a=whole)
    comm.Barrier()
    array = stored_arrays(path)["a"]
    cuts = np.array(bounds(shape[0], comm.size))
    own = slice(*cuts[comm.rank : comm.rank + 2])
    for reader in {0, comm.size - 1}:
        found = share_rows(array, comm, cuts, reader, piece_bytes)
        assert_array_equal(found, whole[own])
        plainly = decompress_rows(array, own.start, own.stop)
        assert_array_equal(found, plainly)
        assert found.strides == plainly.strides


@pytest.mark.mpi(min_size=2)
def test_each_byte_is_decompressed_once(comm, mpi_tmp_path, monkeypatch):
    path = mpi_tmp_path / "a.npz"
    if comm.rank == 0:
        np.savez_compressed(path, X=np.zeros((5000, 8)), y=np.zeros(5000))
    comm.Barrier()
    read = []
    readinto = zipfile.ZipExtFile.readinto

    def counted(stream, view):
        read.append(readinto(stream, view))
        return read[-1]

    monkeypatch.setattr(zipfile.ZipExtFile, "readinto", counted)
    read_rows(path, comm, target="y")
    assert sum(comm.allgather(sum(read))) == 5000 * 9 * 8


@pytest.mark.mpi(min_size=2)
def test_damage_is_told_on_all_ranks(comm, mpi_tmp_path):
    path = mpi_tmp_path / "a.npz"
    if comm.rank == 0:
        noise = np.random.default_rng(0).standard_normal((4000, 8))
        np.savez_compressed(path, X=noise, y=np.zeros(4000))
        data = bytearray(path.read_bytes())
        data[120_000:120_100] = bytes(100)
        path.write_bytes(data)
    comm.Barrier()
    with pytest.raises(DataError, match="array 'X': damaged"):
        read_rows(path, comm, target="y")
    comm.Barrier()
