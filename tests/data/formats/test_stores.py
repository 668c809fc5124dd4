"""HDF5 and Zarr: what .npz gives for the same arrays, on any ranks."""

import json
import os
import shutil

import h5py
import named_arrays
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.data.formats.arrays.hdf5 import datasets
from pympi_train.data.formats.arrays.slabs import slab_pieces
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.read import read_rows
from pympi_train.data.loading.again import read_again
from pympi_train.errors import DataError

stores = pytest.mark.parametrize("suffix", ["h5", "zarr"])
KINDS = {
    "h5": {"chunks": None},
    "chunked.h5": {"chunks": 4, "compressed": True},
    "2.zarr": {"version": 2},
    "zarr": {},
}


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def make_arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 4000, n).astype("datetime64[D]")
    age = rng.integers(18, 90, n) + 0.5
    days[rng.random(n) < 0.1] = np.datetime64("NaT")
    age[rng.random(n) < 0.1] = np.nan
    return {
        "age": age,
        "big": rng.standard_normal((n, 3)).astype(">f4"),
        "city": rng.choice(["Oslo", "Tromsø", "a" * 50, ""], n),
        "is": rng.random(n) < 0.5,
        "joined": days,
        "patient": rng.choice([b"p", b"q", b"r", b"s", b"t"], n),
        "part": rng.choice(["train", "validation"], n),
        "size": rng.choice(np.array([1, 2, 3, 10], "u1"), n),
        "text": days.astype(str),
        "w": rng.integers(1, 5, n) / 2,
        "yes": rng.choice(["no", "yes", "maybe"], n),
        "z": rng.standard_normal(n),
    }


SELECTIONS = [
    {"features": ["big", "is", "size"], "target": "z"},
    {"features": "big", "target": ["z", "w"]},
    {"features": "big", "target": "is", "target_kind": "label"},
    {"features": "big", "target": "is", "target_kind": "label", "text_labels": True},
    {"features": "big", "target": "yes", "target_kind": "label", "others": ["patient"]},
    {"features": "big", "target": "patient", "target_kind": "label"},
    {
        "target": "yes",
        "target_kind": "label",
        "drop": ["part", "text", "patient"],
        "weights": "w",
        "categories": ["city", "size"],
        "dates": ["joined"],
        "lacking": "all",
    },
    {"features": ["text", "age"], "dates": ["text"], "target": "z", "lacking": "all"},
]


def plain(rows):
    """Return Rows as values that can be compared."""
    y = rows.y.tolist()
    found = [rows.n, rows.start, rows.stop, np.asarray(rows.x[:]).tolist(), y]
    found += [None if rows.weights is None else rows.weights.tolist()]
    found += [rows.feature_names, rows.categories, rows.dates]
    found += [{name: texts.tolist() for name, texts in rows.others.items()}]
    return json.dumps(found, default=str)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("counts", [[4, 1, 11], [1] * 4, [2]])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_npz(comm, mpi_tmp_path, kind, counts):
    arrays, at = make_arrays(sum(counts)), 0
    for i, count in enumerate(counts):
        part = {name: values[at : at + count] for name, values in arrays.items()}
        at += count
        if comm.rank == 0:
            named_arrays.save_arrays(mpi_tmp_path / f"p{i}.npz", part)
            named_arrays.save_arrays(mpi_tmp_path / f"q{i}.{kind}", part, **KINDS[kind])
    comm.Barrier()
    for how in SELECTIONS:
        want = read_rows(mpi_tmp_path / "p*", comm, **how)
        found = read_rows(mpi_tmp_path / "q*", comm, **how)
        assert plain(found) == plain(want)
        assert found.x.dtype == want.x.dtype
        assert (found.reach is None) == (want.reach is None or kind != "h5")


@pytest.mark.mpi(min_size=2)
@stores
def test_a_training_and_files_of_other_formats(comm, mpi_tmp_path, suffix):
    """Validation rows by stratum, by group and by column; evaluation of each format."""
    if comm.rank == 0:
        for i, name in enumerate(named_arrays.SUFFIXES):
            for file, arrays in (("a", make_arrays(60)), ("b", make_arrays(17, 1))):
                path = mpi_tmp_path / f"{file}.{name}"
                named_arrays.save_arrays(path, arrays, chunks=8)
    comm.Barrier()
    base = {"features": ["big", "city", "joined"], "target": "yes", "weights": "w"}
    base |= {"categorical": "city", "dates": "joined", "missing": "mean"}
    for how in (
        {"validation": 0.25, "split": "stratified"},
        {"validation": 0.25, "group": "patient", "virtual_shards": 8},
        {"split": "column", "split_column": "part"},
        {"missing": "drop", "standardize": True},
    ):
        npz, other = (
            pt.load(mpi_tmp_path / f"a.{name}", **(base | how), comm=comm)
            for name in ("npz", suffix)
        )
        pairs = [(npz.train, other.train), (npz.validation, other.validation)]
        if npz.validation is None:
            pairs = pairs[:1]
        for one, two in pairs:
            assert_array_equal(one.x[:], two.x[:])
            assert_array_equal(one.y, two.y)
            assert_array_equal(one.weights, two.weights)
    other = pt.load(mpi_tmp_path / f"a.{suffix}", **base, comm=comm)
    for name in named_arrays.SUFFIXES:
        again = read_again(mpi_tmp_path / f"b.{name}", other.schema, comm)
        want = read_again(mpi_tmp_path / "b.npz", other.schema, comm)
        assert_array_equal(again.x[:], want.x[:])
        assert_array_equal(again.y, want.y)


@pytest.mark.mpi(min_size=2)
def test_absent_chunks_are_counted_once(comm, mpi_tmp_path):
    path = mpi_tmp_path / "a.zarr"
    if comm.rank == 0:
        group = zarr.open_group(path, mode="w")
        x = group.create_array("x", shape=(20, 4), chunks=(3, 2), dtype="f8")
        x[:6] = 1
        y = group.create_array("y", shape=(20,), chunks=(2,), shards=(4,), dtype="i8")
        y[4:] = 1
    comm.Barrier()
    rows = read_rows(path, comm, target="y", target_kind="label")
    assert rows.remarks[0].startswith(f"{path}: 11 chunks are absent")  # 5 * 2 + 1
    loaded = pt.load(path, validation=str(path), comm=comm)
    assert loaded.remarks.count(rows.remarks[0]) == 2
    assert read_again(path, loaded.schema, comm).remarks == rows.remarks


def test_an_unchunked_data_set_is_mapped(alone, tmp_path, monkeypatch):
    from pympi_train.data.loading import finish
    from pympi_train.data.sources.mapped import MappedDataset

    path = tmp_path / "a.h5"
    x = np.random.default_rng(0).standard_normal((50, 3))
    for block_bytes in (512, 0):  # of a header of the user's own
        with h5py.File(path, "w", userblock_size=block_bytes) as file:
            file["group/x"], file["y"] = x, np.arange(50) % 2
            file.create_dataset("late", (50,), dtype="f4")  # no byte of it is written
            few_bits = h5py.h5t.STD_I16LE.copy()
            few_bits.set_precision(12)
            few_bits.set_offset(4)
            space = h5py.h5s.create_simple((50,))
            h5py.h5d.create(file.id, b"few", few_bits, space)
            file["few"][:], file["is"] = np.arange(50), np.arange(50) < 9
        found = datasets(str(path))
        assert_array_equal(found["group/x"].fetch(7, 9), x[7:9])
        assert_array_equal(found["late"].fetch(3, 6), np.zeros(3))
        assert_array_equal(found["few"].fetch(20, 30), np.arange(20, 30))
        assert_array_equal(found["is"].fetch(8, 10), [True, False])
    is_mapped = {name: array.is_mapped for name, array in found.items()}
    assert is_mapped == dict.fromkeys(["group/x", "is", "y"], True) | {
        "late": False,
        "few": False,
    }
    part = found["group/x"].fetch(7, 9)
    assert not part.flags.owndata and not part.flags.writeable
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 100)
    loaded = pt.load(path, features="group/x", dtype="float64", comm=alone)
    assert isinstance(loaded.train, MappedDataset)
    assert_array_equal(loaded.train.x[:], x)


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 9),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 8),
    st.integers(1, 400),
)
def test_pieces_are_the_rows_once_and_cut_at_chunks(a, b, width, chunks, item, most):
    start, stop = sorted((a, b))
    seen = np.zeros((40, width), int)
    for rows, columns in slab_pieces(start, stop, width, chunks, item, most):
        piece = seen[rows, columns]
        assert piece.size
        seen[rows, columns] += 1
        for cut, unit, last in (
            (rows.stop, chunks[0], stop),
            (columns.stop, chunks[1], width),
        ):
            assert cut == last or cut % unit == 0
        in_one = len(piece) <= chunks[0] and piece.shape[1] <= chunks[1]
        assert piece.size * item <= most or in_one
    assert (seen[start:stop] == 1).all() and seen.sum() == (stop - start) * width


def write_odd(path):
    """Write arrays that cannot be features or targets, and some that can."""
    arrays = {"x": np.ones((4, 2)), "y": np.arange(4), "g/a": np.ones(4)}
    arrays |= {"odd": np.ones(3), "zero": np.array(1.0), "cube": np.ones((4, 1, 1))}
    arrays |= {"fields": np.ones(4, "i4,f8"), "c": np.ones(4, complex)}
    arrays |= {"text": np.array(["1", "b", "c", "d"])}
    named_arrays.save_arrays(path, arrays)


@stores
@pytest.mark.parametrize(
    "how, words",
    [
        ({"target": "Y"}, "no target .* 'Y'; the closest is 'y'; present: "),
        ({"features": "X"}, "no feature .* 'X'; the closest is 'x'"),
        ({"features": ["x", "g"]}, "'g': is a group, not .*; it holds .*a'"),
        ({"target": "g"}, "'g': is a group, not"),
        ({"features": "fields"}, "'fields': a .* with the fields 'f0', 'f1'; store"),
        ({"features": "c"}, "'c': expected real numbers, .* found dtype complex128"),
        ({"features": "zero"}, r"'zero': expected shape \(rows,\) .* found \(\)"),
        ({"features": "cube"}, r"'cube': expected shape .* found \(4, 1, 1\)"),
        ({"features": ["x", "odd"]}, "'odd': 3 rows, but .*'x' has 4"),
        ({"features": "text"}, "'text': expected numbers, .*categorical or drop"),
        ({"features": "x", "dates": ["y"]}, "dates .* 'y' is not among the features"),
        ({"features": "y", "dates": ["y"], "target": "x"}, "expected dates"),
        ({"features": "x", "target": ["y", "g/a"], "target_kind": "label"}, "got 2"),
        ({"need_target": False, "target": None}, "of different lengths, so"),
    ],
)
def test_arrays_that_cannot_be_had(alone, tmp_path, suffix, how, words):
    path = tmp_path / f"a.{suffix}"
    write_odd(path)
    with pytest.raises(DataError, match=words):
        read_rows(path, alone, **({"target": "y"} | how))


def test_types_and_links_that_hdf5_alone_has(alone, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.ones((4, 2)), np.arange(4)
        file["soft"], file["g/up"] = h5py.SoftLink("/x"), h5py.SoftLink("/nowhere")
        file["far"] = h5py.ExternalLink("gone.h5", "/x")
        file["near"] = h5py.ExternalLink("other.h5", "/deep/x")
        file["empty"] = h5py.Empty("f8")
        file.create_dataset("ragged", (4,), dtype=h5py.vlen_dtype("i4"))
        file.create_dataset("ref", (4,), dtype=h5py.ref_dtype)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["deep/x"] = np.full((4, 2), 7.0)
    for name, value in (("soft", 1), ("near", 7), ("/x", 1)):
        assert (read_rows(path, alone, features=name, target="y").x[:] == value).all()
    for name, words in (
        ("far", "'far' is a link to /x in the file 'gone.h5', which cannot be opened"),
        ("g/up", "'g/up' is a link to /nowhere, which cannot be opened"),
        ("ragged", "'ragged': expected numbers, text or dates, found arrays of any"),
        ("ref", "'ref': expected numbers, text or dates, found references"),
        ("empty", r"'empty': expected shape \(rows,\)"),
    ):
        with pytest.raises(DataError, match=words):
            read_rows(path, alone, features=name, target="y")


def test_virtual_data_sets_need_their_files(alone, tmp_path):
    path = tmp_path / "all.h5"
    layout = h5py.VirtualLayout((6,), "f8")
    for i in range(3):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as file:
            file["x"] = np.full(2, i)
        layout[2 * i : 2 * i + 2] = h5py.VirtualSource(f"part{i}.h5", "x", (2,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
        file["y"] = np.arange(6)
    rows = read_rows(path, alone, target="y")
    assert rows.x[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    os.remove(tmp_path / "part1.h5")
    with pytest.raises(DataError, match="'x': its rows 2 to 3 are in .*part1.h5, wh"):
        read_rows(path, alone, target="y")


def test_elements_in_other_files(alone, tmp_path):
    raw, path = tmp_path / "raw.bin", tmp_path / "a.h5"
    np.arange(6.0).tofile(raw)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (6,), "f8", external=[(str(raw), 0, 48)])
        file["y"] = np.arange(6)
    assert read_rows(path, alone, target="y").x[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    raw.write_bytes(bytes(40))
    with pytest.raises(DataError, match="raw.bin ends early: expected 48 bytes, found"):
        read_rows(path, alone, target="y")
    raw.unlink()
    with pytest.raises(DataError, match="'x': cannot be read.*external raw data file"):
        read_rows(path, alone, target="y")


def test_a_filter_that_is_not_installed(alone, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["y"] = np.arange(4)
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((4,))
        # Optional, so that HDF5 lets it be written; number 400 is nobody's.
        how.set_filter(400, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, space, how)
    with pytest.raises(DataError, match="'x': compressed with the HDF5 filter 400"):
        read_rows(path, alone, target="y")


def damage_hdf5(path, how):
    whole = path.read_bytes()
    noise = b"\xff" * 300
    path.write_bytes(
        {
            "empty": b"",
            "text": b"x,y\n" * 500,
            "half": whole[: len(whole) // 2],
            "header": whole[:800] + noise + whole[1100:],
            "chunk": whole[:-2000] + bytes(2000),
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "text", "half", "header", "chunk"])
def test_a_damaged_hdf5_file_is_named(alone, tmp_path, how):
    path = tmp_path / "a.h5"
    noise = np.random.default_rng(0).random((500, 2))
    arrays = {"x": noise, "y": np.ones(500)}
    named_arrays.save_arrays(path, arrays, chunks=100, compressed=True)
    damage_hdf5(path, how)
    with pytest.raises(DataError, match="a.h5.* cannot be read, perhaps not a compl"):
        read_rows(path, alone, target="y")


def rewrite(path, change):
    parts = json.loads(path.read_text())
    change(parts)
    path.write_text(json.dumps(parts))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "how, words",
    [
        ("no root", "not a Zarr store: the folder has none of the files"),
        ("root", "cannot be read, perhaps not a complete Zarr store: JSONDecode"),
        ("no json", "array 'x': cannot be read.*: "),
        ("empty json", "array 'x': cannot be read.*: "),
        ("no array", "no feature array 'x'; present: "),
        ("codec", "array 'x': cannot be read.*: UnknownCodecError: .*zzz"),
        ("dtype", "array 'x': cannot be read.*: .*foo"),
        ("chunk", "array 'x': cannot be read, perhaps .*: "),
        ("array alone", "a single Zarr array, which has no name here"),
    ],
)
def test_a_damaged_zarr_store_is_named(alone, tmp_path, version, how, words):
    path = tmp_path / "a.zarr"
    arrays = {"x": np.ones((4, 2)), "y": np.arange(1.0, 5)}
    named_arrays.save_arrays(path, arrays, version=version)
    root = path / ("zarr.json" if version == 3 else ".zgroup")
    meta = path / "x" / ("zarr.json" if version == 3 else ".zarray")
    codec, dtype = {"compressor": {"id": "zzz"}}, {"dtype": "foo"}
    if version == 3:
        codec, dtype = {"codecs": [{"name": "zzz"}]}, {"data_type": "foo"}
    if how == "no root":
        root.unlink()
    elif how == "root":
        # A .zgroup is not opened: its name says enough.
        (path / "zarr.json").write_text("{")
    elif how in ("no json", "empty json"):
        meta.write_text("{" if how == "no json" else "{}")
    elif how == "no array":
        meta.unlink()
    elif how in ("codec", "dtype"):
        rewrite(meta, lambda parts: parts.update(codec if how == "codec" else dtype))
    elif how == "chunk":
        chunk = path / "x" / ("c/0/0" if version == 3 else "0.0")
        chunk.write_bytes(b"abc")
    else:
        shutil.copytree(path / "x", tmp_path / "b.zarr")
        path = tmp_path / "b.zarr"
    with pytest.raises(DataError, match=words):
        read_rows(path, alone, features="x", target="y")


def test_pickled_objects_are_never_loaded(alone, tmp_path):
    path = tmp_path / "a.zarr"
    named_arrays.save_arrays(path, {"x": np.ones(4), "y": np.ones(4)}, version=2)
    pickle = {"id": "pickle", "protocol": 5}
    for change in (
        {"dtype": "|O", "filters": [pickle]},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, pickle]},
        {"filters": None, "compressor": pickle},
    ):
        rewrite(path / "x" / ".zarray", lambda parts: parts.update(change))
        with pytest.raises(DataError, match="'x': (holds Python objects|cannot be re)"):
            read_rows(path, alone, target="y", features="x", categories=["x"])


def test_stores_among_the_files_of_a_folder(alone, tmp_path):
    for i in (10, 9):
        named_arrays.save_arrays(tmp_path / f"{i}.zarr", {"x": np.ones(4)})
    found = find_files(tmp_path, alone)
    assert [os.path.basename(path) for path in found.paths] == ["9.zarr", "10.zarr"]
    assert found.format == "zarr"
    assert find_files(tmp_path / "*.zarr", alone).paths == found.paths
    assert find_files(f"{tmp_path}/9.zarr/", alone).paths == found.paths[:1]
    with pytest.raises(DataError, match="no.zarr: expected the folder of a Zarr store"):
        read_rows(tmp_path / "no.zarr", alone, target="y")
    with pytest.raises(DataError, match="no.h5: no such file"):
        read_rows(tmp_path / "no.h5", alone, target="y")


@pytest.mark.parametrize("suffix, library", [("h5", "h5py"), ("zarr", "zarr")])
def test_a_library_that_is_not_installed(alone, tmp_path, monkeypatch, suffix, library):
    import sys

    path = tmp_path / f"a.{suffix}"
    named_arrays.save_arrays(path, {"x": np.ones(4), "y": np.ones(4)})
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=r"pip install 'pympi-train\[data\]'"):
        read_rows(path, alone, target="y")
