"""Files behind a URL: what the local ones give, by byte ranges."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from named_arrays import save_arrays
from numpy.testing import assert_array_equal
from web_files import serve_folder

from pympi_train.data.formats import remote
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.read import read_rows
from pympi_train.data.tables.table import open_table
from pympi_train.errors import DataError

N = 3000


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture
def server(comm, mpi_tmp_path):
    """Rank 0 serves the folder; the others know its address."""
    if comm.rank:
        yield comm.bcast(None)
        comm.Barrier()
        return
    with serve_folder(mpi_tmp_path) as served:
        comm.bcast(served.url)
        yield served.url
        comm.Barrier()


def make_arrays(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "name": rng.choice(["é", "bb", ""], n),
        "x": rng.standard_normal((n, 20)).astype("f4"),
        "y": rng.integers(3, size=n),
    }


def write_text(path, x, y):
    with open(path, "w") as file:
        if path.suffix == ".csv":
            file.write(",".join(["y", *(f"c{i}" for i in range(x.shape[1]))]) + "\n")
        for row, label in zip(x.tolist(), y.tolist()):
            words = [f"{i + 1}:{v!r}" for i, v in enumerate(row)]
            if path.suffix == ".csv":
                words = map(repr, row)
            sign = "," if path.suffix == ".csv" else " "
            file.write(sign.join([str(label), *words]) + "\n")


def write(folder, kind):
    """Write two files of a format; return the names of their target."""
    for i in range(2):
        arrays = make_arrays(N - 7 * i, seed=i)
        path = folder / f"part{i}.{kind}"
        if kind in ("csv", "svm"):
            write_text(path, arrays["x"], arrays["y"])
            continue
        if kind == "parquet":
            columns = {f"c{j}": column for j, column in enumerate(arrays["x"].T)}
            table = pa.table({"name": arrays["name"], **columns, "y": arrays["y"]})
            pq.write_table(table, path, row_group_size=700)
            continue
        if kind == "npy":
            np.save(path, np.asarray(arrays["x"], order="CF"[i]))
            np.save(folder / f"target{i}.npy", arrays["y"])
            continue
        packed = "packed" in kind
        chunks = 500 if packed or "zarr" in kind else None
        save_arrays(path, arrays, chunks=chunks, compressed=packed)
    if kind == "npy":
        return ["target0.npy", "target1.npy"]
    return "y"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "kind",
    "npy npz packed.npz h5 packed.h5 zarr plain.zarr csv svm parquet".split(),
)
def test_rows_are_those_of_local_files(comm, mpi_tmp_path, server, kind):
    target = comm.bcast(write(mpi_tmp_path, kind) if comm.rank == 0 else None)
    how = {"target": target, "target_kind": "label"}
    if kind not in ("npy", "csv", "svm"):
        features = [f"c{j}" for j in range(20)] if kind == "parquet" else "x"
        how |= {"features": features, "others": ["name"]}
    names = [f"part{i}.{kind}" for i in range(2)]
    want = read_rows([mpi_tmp_path / name for name in names], comm, **how)
    found = read_rows([f"{server}/{name}" for name in names], comm, **how)
    assert (found.n, found.start, found.stop) == (want.n, want.start, want.stop)
    assert_array_equal(found.x[:], want.x[:])
    assert_array_equal(found.y, want.y)
    assert found.reach is None and not found.remarks
    for name, texts in want.others.items():
        assert found.others[name].tolist() == texts.tolist()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", "npz csv svm parquet".split())
def test_tables_are_those_of_local_files(comm, mpi_tmp_path, server, kind):
    if comm.rank == 0:
        write(mpi_tmp_path, kind)
    comm.Barrier()
    names = [f"part{i}.{kind}" for i in range(2)]
    columns = {"npz": ["x", "y"], "svm": None}.get(kind, ["c3", "y"])
    want = open_table([mpi_tmp_path / name for name in names], comm, columns)
    found = open_table([f"{server}/{name}" for name in names], comm, columns)
    assert (found.n, found.names) == (want.n, want.names)
    for one, other in zip(found.pieces(900, 4000), want.pieces(900, 4000)):
        for name in found.names:
            assert_array_equal(one[name], other[name])


@pytest.mark.mpi(min_size=2)
def test_streams_are_those_of_local_files(comm, mpi_tmp_path, server):
    if comm.rank == 0:
        write(mpi_tmp_path, "parquet")
    comm.Barrier()
    names = [f"part{i}.parquet" for i in range(2)]
    how = {"target": "y", "features": ["c1", "c7"], "is_streamed": True}
    want = read_rows([mpi_tmp_path / name for name in names], comm, **how)
    found = read_rows([f"{server}/{name}" for name in names], comm, **how)
    assert_array_equal(found.x[:], want.x[:])
    assert_array_equal(found.x[5:9], want.x[5:9])


def test_a_damaged_parquet_file(alone, tmp_path):
    write(tmp_path, "parquet")
    path = tmp_path / "part0.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with serve_folder(tmp_path) as server:
        url = f"{server.url}/part0.parquet"
        with pytest.raises(DataError, match="part0.parquet: cannot be read as Parquet"):
            read_rows(url, alone, target="y")
        server.fails = "part1"
        with pytest.raises(DataError, match="part1.parquet: cannot be read.*500"):
            read_rows(url.replace("part0", "part1"), alone, target="y")


@pytest.mark.mpi(min_size=2)
def test_errors_are_told_on_all_ranks(comm, mpi_tmp_path, server):
    with pytest.raises(DataError, match=f"{server}/no.npy: no such file"):
        read_rows(f"{server}/no.npy", comm, need_target=False)
    with pytest.raises(DataError, match="no.h5: no such file"):
        read_rows(f"{server}/no.h5", comm, target="y")
    with pytest.raises(DataError, match="no.zarr: .*No group found"):
        read_rows(f"{server}/no.zarr", comm, target="y")
    with pytest.raises(DataError, match="no.csv: no such file"):
        read_rows(f"{server}/no.csv", comm, target="y")
    with pytest.raises(DataError, match="no.parquet: no such file"):
        read_rows(f"{server}/no.parquet", comm, target="y")
    comm.Barrier()


def test_each_rank_asks_for_its_rows_alone(alone, tmp_path):
    from pympi_train.data.formats.arrays.npy import stored_npy

    x = np.random.default_rng(0).standard_normal((4000, 50))
    np.save(tmp_path / "x.npy", x)
    with serve_folder(tmp_path) as server:
        array = stored_npy(f"{server.url}/x.npy")
        del server.asked[:]
        assert_array_equal(array.fetch(1000, 1010), x[1000:1010])
        (asked,) = [part for method, _, part in server.asked if method == "GET"]
    first, last = map(int, asked.removeprefix("bytes=").split("-"))
    assert last + 1 - first == 10 * 50 * 8


def test_lists_and_patterns_are_looked_up(alone, tmp_path):
    for i in (10, 9, 1):
        np.savez(tmp_path / f"p{i}.npz", x=np.ones(2), y=np.ones(2))
    (tmp_path / "README.md").write_text("no data")
    with serve_folder(tmp_path) as server:
        want = tuple(f"{server.url}/p{i}.npz" for i in (1, 9, 10))
        for given in (f"{server.url}/p*.npz", f"{server.url}/"):
            assert find_files(given, alone).paths == want
        assert find_files([want[1], want[0]], alone).paths == (want[1], want[0])
        with pytest.raises(DataError, match="q.*: no file has a name of this pattern"):
            find_files(f"{server.url}/q*.npz", alone)
        with pytest.raises(DataError, match="comes twice"):
            find_files([want[0], want[0]], alone)
        assert find_files(f"{want[0]}?token=1", alone).format == "npz"


def test_other_protocols_list_arrays_and_files(alone):
    import fsspec
    import zarr

    fsspec.filesystem("memory").store.clear()
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
    for i in range(2):
        with fsspec.open(f"memory://bucket/{i}.npz", "wb") as file:
            np.savez(file, x=x, y=y)
    group = zarr.open_group("memory://bucket/a.zarr", mode="w")
    group.create_array("x", data=x)
    group.create_array("in/y", data=y)
    rows = read_rows("memory://bucket/*.npz", alone, target="y")
    assert_array_equal(rows.x, np.vstack([x, x]))
    rows = read_rows("memory://bucket/a.zarr", alone, target="in/y")
    assert rows.feature_names == ("x",)
    assert_array_equal(rows.x, x)
    fsspec.filesystem("memory").store.clear()


def test_a_server_without_ranges(alone, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((50_000, 2)))
    with serve_folder(tmp_path, has_ranges=False) as server:
        with pytest.raises(DataError, match="x.npy: cannot be read: .*range requests"):
            read_rows(f"{server.url}/x.npy", alone, need_target=False)


def test_a_server_that_is_gone(alone, tmp_path):
    with serve_folder(tmp_path) as server:
        url = server.url
    with pytest.raises(DataError, match="x.npy: cannot be read: ClientConnectorError"):
        read_rows(f"{url}/x.npy", alone, need_target=False)


@pytest.mark.parametrize("suffix", ["npy", "h5", "zarr", "csv", "parquet"])
def test_a_server_that_says_nothing(alone, monkeypatch, suffix):
    import socket

    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.{suffix}"
        with pytest.raises(DataError, match=f"x.{suffix}: cannot be read.*: .*Timeout"):
            read_rows(url, alone, need_target=False)


def test_chunks_in_shards(alone, tmp_path):
    import zarr

    x = np.random.default_rng(0).standard_normal((60, 4))
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("x", data=x, chunks=(5, 4), shards=(20, 4))
    group.create_array("y", data=np.arange(60.0), chunks=(60,))
    with serve_folder(tmp_path) as server:
        url = f"{server.url}/a.zarr"
        rows = read_rows(url, alone, target="y", features="x")
        assert_array_equal(rows.x, x)
        server.fails = "/x/c/1/0"  # not the same as absent
        with pytest.raises(DataError, match="array 'x': cannot be read.*500"):
            read_rows(url, alone, target="y", features="x")
        server.fails = None
        (tmp_path / "a.zarr" / "x" / "c" / "1" / "0").write_bytes(b"short")
        with pytest.raises(DataError, match="array 'x': cannot be read"):
            read_rows(url, alone, target="y", features="x")


@pytest.mark.parametrize(
    "url, library, words",
    [
        ("nosuch://a/x.npy", None, "cannot be read: ValueError: Protocol not known"),
        ("http://a/x.npy", "fsspec", r"remote files need fsspec: pip install 'pympi"),
        ("http://a/x.npy", "aiohttp", r"needs aiohttp: pip install 'pympi-train\["),
        ("s3://a/x.npy", "s3fs", r"s3:// needs s3fs, .*\): pip install s3fs$"),
        ("gs://a/*.npz", "gcsfs", r"gs:// needs gcsfs, .*\): pip install gcsfs$"),
        ("sftp://a/x.npy", "paramiko", r"a/x.npy: SFTPFileSystem requires .paramiko"),
    ],
)
def test_what_is_not_installed(alone, monkeypatch, url, library, words):
    if library:
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=words):
        read_rows(url, alone, need_target=False)


def test_a_format_that_is_read_from_disk_alone(alone, monkeypatch):
    from pympi_train.data.formats import files

    monkeypatch.setitem(files.FORMATS, ".odd", "odd")
    with pytest.raises(DataError, match="x.odd: files of this format are not read"):
        find_files("http://a/x.odd", alone)


def test_local_files_do_not_load_fsspec(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(2), y=np.ones(2))
    program = """
import sys
from mpi4py import MPI
from pympi_train.data.formats.read import read_rows
from pympi_train.data.tables.table import open_table
read_rows(sys.argv[1], MPI.COMM_SELF, target="y")
print({"fsspec", "aiohttp", "h5py", "zarr"} & set(sys.modules))
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "a.npz")]
    assert subprocess.check_output(argv, text=True).strip() == "set()"
