"""The tools of ``pympi-train data``: the same bytes on any ranks, or nothing."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from pyarrow import parquet

import pympi_train as pt
from pympi_train.config import config
from pympi_train.data.tables.source import Field, Table, join_batches
from pympi_train.datatools.check import check_files
from pympi_train.datatools.convert import convert_files, write_table
from pympi_train.datatools.duplicates import ColumnHashes
from pympi_train.datatools.folder import new_folder
from pympi_train.datatools.info import describe_files, info_lines
from pympi_train.datatools.made_tables import make_tokens
from pympi_train.datatools.split_files import split_files
from pympi_train.datatools.synth import make_data
from pympi_train.datatools.writers import NpyShards
from pympi_train.errors import ConfigError, DataError

N = 60
HOW = {
    "features": 5,
    "classes": 3,
    "nonzeros": 4,
    "side": 6,
    "channels": 2,
    "vocabulary": 50,
    "noise": 0.1,
    "seed": 3,
}


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def write_csv(path, n=N):
    """Write rows with gaps, texts and patients; return the path as str."""
    rng = np.random.default_rng(1)
    lines = ["age,city,patient,big,label"]
    for i in range(n):
        age = "" if i % 9 == 0 else f"{rng.normal() * 1e3:.3f}"
        city = rng.choice(["Oslo", '"a ""b"""', "", "Tromsø"])
        lines.append(f"{age},{city},p{i // 4},{2**53 + i},{'yes' if i % 3 else 'no'}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def contents(folder):
    """The bytes of each file in a folder and below."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def all_rows(path, comm):
    return join_batches(list(pt.data.open(path, comm)))


def same_on_one_rank(work, comm, folder):
    """Return the folder that ``work(output, comm)`` wrote; raise if ranks matter."""
    from mpi4py import MPI

    work(str(folder / "many"), comm)
    if comm.rank == 0:
        work(str(folder / "one"), MPI.COMM_SELF)
        many = contents(folder / "many")
        assert many == contents(folder / "one") and len(many) >= 2
    comm.Barrier()
    return str(folder / "many")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_shards_do_not_depend_on_ranks(rows, comm, mpi_tmp_path):
    if comm.rank == 0:
        write_csv(mpi_tmp_path / "a.csv")
    comm.Barrier()
    path = str(mpi_tmp_path / "a.csv")

    def work(output, comm):
        convert_files(path, output, comm, rows=rows)

    output = same_on_one_rank(work, comm, mpi_tmp_path)
    for name, values in all_rows(output, comm).items():
        assert_array_equal(values, all_rows(path, comm)[name])
    manifest = json.loads(Path(output, "_manifest.json").read_text())
    assert manifest["rows"] == N and len(manifest["shards"]) == -(-N // rows)
    assert check_files(output, comm, columns=["patient"])["findings"] == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "kind", ["regression", "classification", "images", "tokens", "sparse"]
)
def test_made_data_do_not_depend_on_ranks(kind, comm, mpi_tmp_path):
    def work(output, comm):
        make_data(kind, output, comm, rows=4999, rows_per_shard=1000, **HOW)

    output = same_on_one_rank(work, comm, mpi_tmp_path)
    assert pt.data.open(output, comm).n == 4999
    assert describe_files(output, comm)["rows"] == 4999


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("by", [{}, {"stratify": "label"}, {"group": "patient"}])
def test_split_is_that_of_training(by, comm, mpi_tmp_path):
    if comm.rank == 0:
        write_csv(mpi_tmp_path / "a.csv")
    comm.Barrier()
    path = str(mpi_tmp_path / "a.csv")

    def work(output, comm):
        how = {"format": "parquet", "rows": 7, "seed": 5, **by}
        split_files(path, output, comm, fraction=0.25, **how)

    output = same_on_one_rank(work, comm, mpi_tmp_path)
    train = all_rows(f"{output}/train", comm)
    held = all_rows(f"{output}/validation", comm)
    every = comm.allgather((train["big"].tolist(), held["big"].tolist()))
    in_train, in_held = (sum(lists, []) for lists in zip(*every))
    assert sorted(in_train + in_held) == [2**53 + i for i in range(N)]
    split = "stratified" if "stratify" in by else "random"
    data = pt.load(
        path,
        comm=comm,
        target="label",
        features=["big"],
        validation=0.25,
        split=split,
        group=by.get("group"),
        seed=5,
        dtype="float64",
    )
    used = sum(comm.allgather(data.validation.x[:, 0].tolist()), [])
    assert sorted(used) == sorted(map(float, in_held))


@pytest.mark.mpi(min_size=2)
def test_shards_can_be_trained_on(comm, mpi_tmp_path):
    how = {**HOW, "rows": 90, "rows_per_shard": 40}
    make_data("classification", str(mpi_tmp_path / "made"), comm, **how)
    data = pt.load(
        str(mpi_tmp_path / "made" / "features-*.npy"),
        comm=comm,
        target="target-*.npy",
        dtype="float32",
    )
    rows = all_rows(str(mpi_tmp_path / "made"), comm)
    assert data.train.n == 90
    own = np.stack([rows[f"x{i}"] for i in range(5)], axis=1)
    assert_array_equal(data.train.x, own)


@pytest.mark.mpi(min_size=2)
def test_nothing_is_left_of_a_failure(comm, mpi_tmp_path):
    class Failing(Table):
        def pieces(self, start, stop):
            if comm.rank == 1:
                raise DataError("a.csv, line 7: broken")
            yield {"x": np.zeros(stop - start)}

    table = Failing("t", (), 90, [Field("x", "float64")])
    writer = NpyShards(table)
    with pytest.raises(DataError, match="line 7"):
        write_table(table, str(mpi_tmp_path / "out"), comm, writer, rows=30)
    comm.Barrier()
    assert os.listdir(mpi_tmp_path) == []


@pytest.mark.mpi(min_size=2)
def test_check_finds_what_is_planted(comm, mpi_tmp_path):
    if comm.rank == 0:
        x = np.random.default_rng(0).standard_normal(N)
        columns = {"x": x, "again": x.copy(), "one": np.ones(N), "gaps": x + 1}
        columns["gaps"][[3, 50]] = np.nan, np.inf
        columns["text"] = np.array([f"{i % 7}" for i in range(N)])
        columns["text too"] = columns["text"].copy()
        columns["big"] = 2**60 + np.arange(N)
        columns["bigger"] = columns["big"] + (np.arange(N) == 9)
        np.savez(mpi_tmp_path / "a.npz", **columns)
    comm.Barrier()
    found = check_files(str(mpi_tmp_path / "a.npz"), comm)
    assert found == {
        "rows": N,
        "findings": [
            ("constant", "column 'one': all values are 1.0"),
            ("missing", "column 'gaps': 1 of 60 values are missing"),
            ("infinite", "column 'gaps': 1 values are infinite"),
            ("duplicate", "column 'again' has the values of 'x'"),
            ("duplicate", "column 'text too' has the values of 'text'"),
        ],
    }


@pytest.mark.mpi(min_size=2)
def test_check_finds_damage(comm, mpi_tmp_path):
    output = str(mpi_tmp_path / "out")
    make_data("regression", output, comm, rows=90, rows_per_shard=30, **HOW)
    if comm.rank == 0:
        path = Path(output, "features-00001.npy")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        Path(output, "target-00002.npy").unlink()
    comm.Barrier()
    found = check_files(output, comm)
    kinds = [kind for kind, _ in found["findings"]]
    assert kinds == ["checksum", "checksum", "unreadable"] and found["rows"] is None
    texts = " ".join(text for _, text in found["findings"])
    assert "features-00001.npy: its SHA-256 differs" in texts
    assert "target-00002.npy: no such file" in texts


@pytest.mark.mpi(min_size=2)
def test_check_finds_shards_outside_the_manifest(comm, mpi_tmp_path):
    from pympi_train.cli import main

    output = str(mpi_tmp_path / "out")
    names = ("features-00003.npy", "target-00003.npy")
    make_data("regression", output, comm, rows=90, rows_per_shard=30, **HOW)
    if comm.rank == 0:
        for name in names:
            shutil.copy(Path(output, f"{name[:-5]}0.npy"), Path(output, name))
    comm.Barrier()
    found = check_files(output, comm)
    strange = [("checksum", f"{output}/{name}: not in the manifest") for name in names]
    assert found == {"rows": 90, "findings": strange}
    assert main(["data", "check", output]) == 2
    assert pt.data.open(output, comm).n == 90


def test_check_reads_on_after_an_error(tmp_path, alone):
    for i in range(2):
        table = pa.table({"x": np.random.default_rng(i).random(1000)})
        path = tmp_path / f"{i}.parquet"
        parquet.write_table(table, path, row_group_size=500, compression="gzip")
    data = bytearray((tmp_path / "0.parquet").read_bytes())
    data[100:3000] = bytes(2900)
    (tmp_path / "0.parquet").write_bytes(bytes(data))
    found = check_files(str(tmp_path), alone)
    assert {kind for kind, _ in found["findings"]} == {"unreadable"}
    assert "0.parquet: cannot be read" in found["findings"][0][1]


def test_hash_of_a_column_ignores_the_order_of_batches(alone):
    fields = [Field("a", "float64"), Field("b", "int64"), Field("c", "float64")]
    a, b = np.arange(50.0), np.arange(50)
    batch = {"a": a, "b": b, "c": a[::-1]}
    hashes = ColumnHashes(fields)
    for start in (30, 0):
        hashes.add(start, {n: v[start : start + 30] for n, v in batch.items()})
    assert hashes.duplicates(alone) == [("b", "a")]


def test_suggestion_is_a_configuration(tmp_path, alone):
    import tomli_w

    path = write_csv(tmp_path / "a.csv")
    found = describe_files(path, alone)
    data = found["suggestion"]["data"]
    assert data == {
        "train": path,
        "target": "label",
        "drop": ["big"],
        "categorical": ["city", "patient"],
        "missing": "median",
        "validation": 0.2,
        "split": "stratified",
    }
    data = describe_files(path, alone, columns=["city", "label"])["suggestion"]["data"]
    assert data["features"] == ["city"] and "drop" not in data
    parsed = config.parse(tomli_w.dumps(found["suggestion"]))
    assert parsed.model.kind == "logistic"
    assert [one["missing"] > 0 for one in found["columns"]][:2] == [True, True]


def test_infinite_values_are_not_to_be_filled(tmp_path, alone):
    rng = np.random.default_rng(5)
    columns = {name: rng.standard_normal(30) for name in ("a", "b", "y")}
    columns["a"][3] = -np.inf
    path = columns_of(tmp_path, **columns)
    found = describe_files(path, alone)
    (remark,) = found["remarks"]
    assert remark.startswith("column 'a' has 1 infinite value, which training refuses")
    data = found["suggestion"]["data"]
    assert data == {"train": path, "target": "y", "drop": ["a"], "validation": 0.2}
    how = {**data, "task": "regression"}
    assert pt.load(how.pop("train"), comm=alone, **how).train.x.shape == (24, 1)
    assert remark in list(info_lines(found))


def columns_of(tmp_path, **columns):
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    return str(tmp_path / "a.parquet")


REFUSED = {
    "text": ({"x": ["a"]}, {}, "holds numbers, unlike the columns 'x'"),
    "digits": ({"x": [0.5, 1.0], "i": [2**53 + 1, 0]}, {}, "9007199254740993, which f"),
    "inf": ({"x": [1e300]}, {"dtype": "float32"}, "has 1e[+]300, which float32"),
    "twice": ({"x": [1.0]}, {"target": "x", "weights": "x"}, "the same column, 'x'"),
    "format": ({"x": [1.0]}, {"target": "x", "format": "parquet"}, "for --format npy"),
    "column": ({"x": [1.0]}, {"columns": ["y"]}, "no column 'y'; there are 'x'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_conversions_that_lose_something(name, tmp_path, alone):
    columns, how, message = REFUSED[name]
    path = columns_of(tmp_path, **columns)
    with pytest.raises((DataError, ConfigError), match=message):
        convert_files(path, str(tmp_path / "out"), alone, **{"format": "npy", **how})
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_values_survive(tmp_path, alone):
    x = [-0.0, 1e-320, None, float("inf")]
    i = [2**62 + 1, None, 3, -1]
    path = columns_of(tmp_path, x=x, i=i, t=["", None, "é", "b"], b=[True, None] * 2)
    convert_files(path, str(tmp_path / "p"), alone)
    table = parquet.read_table(tmp_path / "p" / "part-00000.parquet")
    assert table["i"].to_pylist() == i and table["b"].to_pylist() == [True, None] * 2
    assert table["t"].to_pylist() == ["", None, "é", "b"]
    found = all_rows(str(tmp_path / "p"), alone)["x"]
    assert np.signbit(found[0]) and found[1] == 1e-320 and np.isnan(found[2])
    path = columns_of(tmp_path, i=[2**62 + 1, 7], j=[1, 2], y=["a", None])
    how = {"format": "npy", "target": "y"}
    convert_files(path, str(tmp_path / "n"), alone, **how)
    rows = all_rows(str(tmp_path / "n"), alone)
    assert rows["i"].tolist() == [2**62 + 1, 7] and rows["y"].tolist() == ["a", None]


def test_a_split_has_both_parts(tmp_path, alone):
    path = columns_of(tmp_path, x=[1.0])
    how = {"fraction": 0.5, "format": "parquet"}
    with pytest.raises(DataError, match="a.parquet: no row of 1 is for validation"):
        split_files(path, str(tmp_path / "out"), alone, **how)
    with pytest.raises(ConfigError, match="exclude each other"):
        split_files(path, "out", alone, **how, stratify="x", group="x")
    with pytest.raises(ConfigError, match="between 0 and 1, got 2"):
        split_files(path, "out", alone, **{**how, "fraction": 2})


def test_output_must_be_new(tmp_path, alone):
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "out", tmp_path / "no" / "out"):
        with pytest.raises(DataError, match="exists already|No such file"):
            with new_folder(path, alone):
                raise AssertionError("entered")
    assert os.listdir(tmp_path) == ["out"]


def test_tokens_follow_from_one_another():
    tokens = next(make_tokens(4096, vocabulary=50, seed=1).pieces(0, 4096))["token"]
    follows = (31 * tokens[:-1].astype(int) + 7) % 50 == tokens[1:]
    assert tokens.dtype == np.uint16 and 0.8 < follows.mean() < 0.95


def test_images_are_rows_of_a_matrix(tmp_path, alone):
    images = np.arange(30, dtype=np.uint8).reshape(5, 3, 2)
    np.savez(tmp_path / "a.npz", image=images, label=np.arange(5))
    how = {"format": "npy", "target": "label", "rows": 2}
    convert_files(str(tmp_path / "a.npz"), str(tmp_path / "out"), alone, **how)
    stored = np.load(tmp_path / "out" / "features-00001.npy")
    assert_array_equal(stored, images[2:4].reshape(2, 6))
    assert stored.dtype == np.uint8
    assert_array_equal(all_rows(str(tmp_path / "out"), alone)["image"], images)


def run(*argv):
    from pympi_train.cli import main

    return main([str(word) for word in ("data", *argv)])


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv")
    assert run("synth", "images", "made", "--rows", 20, "--side", 5) == 0
    assert run("convert", "a.csv", "out", "--rows-per-shard", 25) == 0
    assert run("split", "out", "parts", "--group", "patient", "--json") == 0
    assert run("info", "out", "--no-header") == 0
    printed = capsys.readouterr().out
    assert "20 rows in 1 shard: made" in printed and "60 rows in 3 shards" in printed
    assert "Tromsø" in printed and 'target = "label"' in printed
    assert run("check", "out") == 2
    assert "column 'age': 7 of 60 values are missing" in capsys.readouterr().out
    assert run("check", "out", "--columns", "big", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"rows": N, "findings": []}
    assert run("convert", "a.csv", "out") == 2
    assert "out: exists already" in capsys.readouterr().err
