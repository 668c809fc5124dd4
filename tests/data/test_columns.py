"""Columns of every kind: what scikit-learn makes of the whole, on any ranks."""

import csv

import numpy as np
import pyarrow
import pyarrow.compute
import pytest
from named_arrays import SUFFIXES, save_arrays
from numpy.testing import assert_allclose, assert_array_equal
from pyarrow import parquet
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import pympi_train as pt
from pympi_train.data.loading.again import read_again
from pympi_train.errors import ConfigError, DataError

N = 83
FEATURES = ["age", "city", "size", "joined"]
HOW = {
    "target": "answer",
    "drop": ["id", "note"],
    "weights": "w",
    "categorical": "city",
    "ordinal": ["size"],
    "dates": ["joined"],
    "dtype": "float64",
}


def make_table(n=N, seed=5):
    """Return columns by name; age, city and joined lack values."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, n) + 0.5
    age[rng.random(n) < 0.2] = np.nan
    days = rng.integers(0, 4000, n).astype("datetime64[D]")
    days[rng.random(n) < 0.1] = np.datetime64("NaT")
    return {
        "id": np.arange(n),
        "age": age,
        "city": rng.choice(["Oslo", "Bergen", "Tromsø", ""], n, p=[0.5, 0.3, 0.1, 0.1]),
        "size": rng.choice([1, 2, 3, 10], n),
        "joined": days,
        "w": rng.integers(1, 5, n) / 2,
        "patient": rng.choice(["p", "q", "r", "s", "t", "u", "v"], n),
        "part": rng.choice(["train", "Validation", "test"], n, p=[0.6, 0.3, 0.1]),
        "note": rng.choice(["x, y", 'said "no"', "line\nline"], n),
        "answer": rng.choice(["no", "yes", "maybe"], n, p=[0.6, 0.3, 0.1]),
    }


def write(path, table):
    if path.suffix[1:] in SUFFIXES:
        save_arrays(path, table)
        return
    if path.suffix == ".parquet":
        columns = {
            name: pyarrow.array(column, from_pandas=True)
            for name, column in table.items()
        }
        coded = columns["city"].dictionary_encode()
        columns["city"] = pyarrow.compute.if_else(
            pyarrow.compute.equal(coded.dictionary_decode(), ""), None, columns["city"]
        ).dictionary_encode()
        parquet.write_table(pyarrow.table(columns), path, row_group_size=17)
        return
    separator = "\t" if path.suffix == ".tsv" else ","
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(table)
        missing = {"nan": "NA", "NaT": ""}
        for row in zip(*(column.tolist() for column in table.values())):
            words = ["" if value is None else str(value) for value in row]
            writer.writerow([missing.get(word, word) for word in words])


@pytest.fixture(params=["csv", "tsv", "npz", "parquet", "h5", "zarr"])
def file(request, mpi_tmp_path, comm):
    path = mpi_tmp_path / f"rows.{request.param}"
    if comm.rank == 0:
        write(path, make_table())
    comm.Barrier()
    return path


def gathered(comm, data):
    parts = comm.allgather((data.x, data.y, data.weights))
    return [np.concatenate(part) for part in zip(*parts)]


def days(table):
    since = table["joined"] - np.datetime64("1970-01-01")
    return since / np.timedelta64(1, "D")


def reference(table, train, missing, indicator, standardize):
    """Return the features of all rows, fitted over the rows of the mask ``train``."""
    size = table["size"][:, None]
    size = OrdinalEncoder().fit(size[train]).transform(size)
    numbers = np.column_stack([table["age"], size, days(table)])
    gaps = np.isnan(numbers)
    how = {"strategy": missing} if missing in ("mean", "median") else {
        "strategy": "constant",
        "fill_value": 0.0,
    }
    numbers = SimpleImputer(**how).fit(numbers[train]).transform(numbers)
    if standardize:
        numbers = StandardScaler().fit(numbers[train]).transform(numbers)
    city = table["city"][:, None]
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    encoder.fit(city[train])
    parts = [numbers[:, :1], encoder.transform(city), numbers[:, 1:]]
    if indicator:
        parts += [gaps[:, [i]] for i in (0, 2)]
    return np.hstack(parts)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "condition, used",
    [
        ("age >= 30.5 and patient in ('p', 'q')", lambda t: (
            (t["age"] >= 30.5) & np.isin(t["patient"], ["p", "q"])
        )),
        ("id < 20 and age is not None", lambda t: (t["id"] < 20) & (t["age"] > 0)),
        ("age > 0 and not city == 'Oslo'", lambda t: (
            (t["age"] > 0) & (t["city"] != "Oslo") & (t["city"] != "")
        )),
        ("city is not None and joined >= '1975-06-01 00:00:00'", lambda t: (
            (t["city"] != "") & (t["joined"] >= np.datetime64("1975-06-01"))
            & (t["age"] > 0)
        )),
        ("age > 0 and size > 2", lambda t: (t["age"] > 0) & (t["size"] > 2)),
    ],
)
def test_rows_that_fulfil_a_condition(comm, file, condition, used):
    """Values that are missing in other rows do not matter; few rows are shared out."""
    table = make_table()
    there = used(table) & ~np.isnat(table["joined"]) & (table["city"] != "")
    loaded = pt.load(
        file,
        **HOW | {"drop": None, "features": FEATURES},
        rows=condition + " and joined is not None and city is not None and age > 0",
        comm=comm,
    )
    x, y, weights = gathered(comm, loaded.train)
    assert loaded.train.n == there.sum() == len(x)
    n_cities = len(set(table["city"][there]))
    assert_array_equal(x[:, 0], table["age"][there])
    assert_array_equal(x[:, n_cities + 2], days(table)[there])
    assert_array_equal(weights, table["w"][there])
    assert_array_equal(loaded.schema.classes[y], table["answer"][there])
    assert f"rows: {there.sum()} of 83 rows are used" in loaded.remarks
    most = max(comm.allgather(len(loaded.train.x)))
    assert most <= 1.1 * there.sum() / comm.size + 8


@pytest.mark.mpi(min_size=2)
def test_rows_without_a_value_they_need(comm, file):
    how = HOW | {"drop": None, "features": FEATURES, "comm": comm}
    with pytest.raises(DataError, match=r"row \d+ \(from 0\) lacks the feature '"):
        pt.load(file, **how, rows="id >= 0")
    assert pt.load(file, **how, rows="id >= 0", missing="mean").train.n == N
    with pytest.raises(DataError, match="none of the 83 rows fulfils rows = 'id < 0'"):
        pt.load(file, **how, rows="id < 0")
    absent = "no (column|array|data set) 'ide'; the closest is 'id'"
    with pytest.raises(DataError, match=absent):
        pt.load(file, **how, rows="ide < 0")


@pytest.mark.mpi(min_size=2)
def test_more_ranks_than_rows_with_missing_values(comm, mpi_tmp_path):
    path = mpi_tmp_path / "one.csv"
    if comm.rank == 0:
        path.write_text("a,b,y\n1,,3\n2,4,5\n")
    comm.Barrier()
    loaded = pt.load(path, missing="drop", task="regression", comm=comm)
    assert loaded.train.n == 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("missing", ["mean", "median", "zero", "drop"])
@pytest.mark.parametrize("shards", [None, 8])
def test_features_are_those_of_scikit_learn(comm, file, missing, shards):
    table = make_table()
    how = HOW | {"drop": ["id", "note", "patient"]}
    if file.suffix in (".h5", ".zarr"):  # whose arrays are in the order of their names
        how["features"] = FEATURES
    loaded = pt.load(
        file,
        **how,
        missing=missing,
        missing_indicator=missing != "drop",
        split="column",
        split_column="part",
        standardize=True,
        virtual_shards=shards,
        comm=comm,
    )
    there = np.ones(N, bool)
    if missing == "drop":
        gaps = np.isnan(table["age"]) | np.isnat(table["joined"])
        there = ~(gaps | (table["city"] == ""))
    train, held = (there & (table["part"] == name) for name in ("train", "Validation"))
    want = reference(table, train, missing, missing != "drop", True)
    classes, y = np.unique(table["answer"], return_inverse=True)
    assert_array_equal(loaded.schema.classes, classes)
    for data, rows in ((loaded.train, train), (loaded.validation, held)):
        x, labels, weights = gathered(comm, data)
        assert_allclose(x, want[rows], rtol=1e-9, atol=1e-9)
        assert_array_equal(labels, y[rows])
        assert_array_equal(weights, table["w"][rows])
    prepared = loaded.schema.preparation
    names = ["age", "city=Bergen", "city=Oslo", "city=Tromsø", "size", "joined"]
    if missing != "drop":
        names.insert(1, "city=missing")
        names += ["age is missing", "joined is missing"]
    assert prepared.names(loaded.schema.feature_names) == names
    assert loaded.schema.n_features == len(names) == x.shape[1]
    said = "missing values are left out" if missing == "drop" else "values are filled"
    assert any(said in remark for remark in loaded.remarks)


@pytest.mark.mpi(min_size=2)
def test_preparation_in_exact_mode_has_the_same_bits(comm, file):
    from mpi4py import MPI

    how = HOW | {"drop": ["id", "note", "patient", "part"]}
    how |= {"missing": "mean", "standardize": True, "virtual_shards": 7}
    mine, alone = (pt.load(file, **how, comm=of) for of in (comm, MPI.COMM_SELF))
    one, other = mine.schema.preparation, alone.schema.preparation
    assert one.fill.tobytes() == other.fill.tobytes()
    assert one.scaling.mean.tobytes() == other.scaling.mean.tobytes()
    assert gathered(comm, mine.train)[0].tobytes() == alone.train.x.tobytes()


@pytest.mark.mpi(min_size=2)
def test_another_file_is_prepared_as_in_training(comm, file, mpi_tmp_path):
    """Its columns have another order, and there is a new one."""
    how = HOW | {"features": FEATURES, "drop": None, "missing": "median"}
    loaded = pt.load(file, **how, standardize=True, clip=1.5, comm=comm)
    table = make_table(40, seed=6)
    table["new"] = table.pop("answer"), table["id"]
    table["new"], table["answer"] = table["new"][1], table["new"][0]
    table = dict(reversed(table.items()))
    other = mpi_tmp_path / f"new{file.suffix}"
    if comm.rank == 0:
        write(other, table)
    comm.Barrier()
    x, _, weights = gathered(comm, read_again(other, loaded.schema, comm))
    both = make_table()
    both = {name: np.concatenate([both[name], table[name]]) for name in both}
    train = np.arange(len(both["id"])) < N
    want = reference(both, train, "median", False, True)[N:]
    numbers = [0, 5, 6]
    want[:, numbers] = want[:, numbers].clip(-1.5, 1.5)
    assert_allclose(x, want, rtol=1e-9, atol=1e-9)
    assert_array_equal(weights, table["w"])
    alone = read_again(other, loaded.schema, comm, need_weights=False)
    assert alone.weights is None
    del table["age"]
    if comm.rank == 0:
        write(other, table)
    comm.Barrier()
    with pytest.raises(DataError, match="no feature .* 'age'"):
        read_again(other, loaded.schema, comm)
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_unknown_categories(comm, file, mpi_tmp_path):
    how = HOW | {"drop": ["id", "note", "patient", "part", "age"]}
    how |= {"missing": "mean", "comm": comm}
    strict, lenient = pt.load(file, **how), pt.load(file, **how, rare_categories=10)
    counts = dict(zip(*np.unique(make_table()["city"], return_counts=True)))
    rare = {name for name, count in counts.items() if count < 10}
    assert rare and rare != set(counts)
    (city, size) = lenient.schema.preparation.encodings
    assert set(city.values) == set(counts) - rare and city.has_other
    assert city.names("city")[-1] == "city=other"
    table = make_table(9, seed=7)
    table["city"] = np.array(["Paris", *table["city"][1:]])
    other = mpi_tmp_path / f"new{file.suffix}"
    if comm.rank == 0:
        write(other, table)
    comm.Barrier()
    words = r"row 0 \(from 0\) has 'Paris' in the column 'city', which no training row"
    with pytest.raises(DataError, match=words):
        read_again(other, strict.schema, comm)
    x = gathered(comm, read_again(other, lenient.schema, comm))[0]
    assert x[0, : city.width].tolist() == [0] * (city.width - 1) + [1]
    comm.Barrier()


def values(path, name="answer", **how):
    from mpi4py import MPI

    return pt.load(path, comm=MPI.COMM_SELF, target=name, **how)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"drop": ["id"]}, "'note'|city"),
        ({"features": ["age", "size"]}, "missing|expected a finite number"),
        ({"features": "city", "categorical": ["city"]}, "expected a category, found"),
        ({"features": "joined", "dates": ["joined"]}, "date|finite number, found nan"),
        ({"features": "city", "dates": "city", "missing": "mean"}, "a date or time"),
        ({"features": ["size"], "weights": "age"}, "number, found"),
        ({"features": ["size"], "weights": "id", "drop": ["id"]}, "both"),
        ({"features": ["size"], "split": "column", "split_column": "city"}, "has '"),
        ({"features": ["size"], "validation": 0.2, "group": "city"}, "has no group in"),
        ({"features": ["size"], "categorical": ["age"]}, "not among the features"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", *SUFFIXES])
def test_refused(tmp_path, suffix, how, words):
    path = tmp_path / f"rows.{suffix}"
    write(path, make_table())
    with pytest.raises(DataError, match=words):
        values(path, **how)


@pytest.mark.parametrize("suffix", ["csv", *SUFFIXES])
def test_negative_weight_names_its_row(tmp_path, suffix):
    table = make_table()
    table["w"][17] = -0.5
    write(tmp_path / f"rows.{suffix}", table)
    words = r"row 17 \(from 0\) has the weight -0.5; expected 0 or more"
    with pytest.raises(DataError, match=words):
        values(tmp_path / f"rows.{suffix}", features="size", weights="w")


@pytest.mark.parametrize("suffix", ["csv", *SUFFIXES])
def test_a_column_without_values_cannot_be_filled(tmp_path, suffix):
    table = make_table()
    table["age"][:] = np.nan
    write(tmp_path / f"rows.{suffix}", table)
    for missing in ("mean", "median", "zero"):
        with pytest.raises(DataError, match="feature 'age' has no value in any"):
            values(
                tmp_path / f"rows.{suffix}", features=["age", "size"], missing=missing
            )


@pytest.mark.parametrize("suffix", ["csv", *SUFFIXES])
def test_rows_without_target_or_weight_are_dropped(tmp_path, suffix):
    table = make_table()
    table["answer"][3], table["w"][5] = "", np.nan
    path = tmp_path / f"rows.{suffix}"
    write(path, table)
    how = {"features": "size", "weights": "w"}
    loaded = values(path, **how, missing="drop")
    assert loaded.train.n == N - 2
    assert loaded.schema.classes.tolist() == ["maybe", "no", "yes"]
    assert_array_equal(loaded.train.weights, np.delete(table["w"], [3, 5]))
    for missing in ("fail", "mean"):
        with pytest.raises(DataError):
            values(path, **how, missing=missing)
    numbers = values(path, "age", task="regression", features="size", missing="drop")
    there = ~np.isnan(table["age"])
    assert_array_equal(numbers.train.y[:, 0], table["age"][there])


def test_classes_and_weights_multiply(tmp_path):
    path, table = tmp_path / "rows.csv", make_table()
    write(path, table)
    how = {"features": "size", "weights": "w"}
    loaded = values(path, **how, class_weights={"yes": 3}, dtype="float64")
    want = table["w"] * np.where(table["answer"] == "yes", 3, 1)
    assert_array_equal(loaded.train.weights, want)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"missing": "guess"}, "missing must be 'fail' or 'mean'"),
        ({"missing_indicator": True}, "missing_indicator needs missing"),
        ({"clip": 3}, "set standardize = true"),
        ({"clip": -1, "standardize": True}, "clip must be a number above 0"),
        ({"rare_categories": 0, "ordinal": "size"}, "rare_categories must be an int"),
        ({"fold": 1}, "need validation = a fraction"),
        ({"fold": 5, "validation": 0.2}, "fold counts from 0"),
        ({"group": ["a"], "validation": 0.2}, "group must be a name"),
        ({"drop": 3}, "drop must be a name or a list"),
    ],
)
def test_arguments_that_are_refused(tmp_path, how, words):
    with pytest.raises(ConfigError, match=words):
        values(tmp_path / "rows.csv", **how)


def test_weights_of_arrays_in_files_of_their_own(tmp_path):
    table = make_table()
    np.save(tmp_path / "x.npy", table["size"][:, None])
    np.save(tmp_path / "y.npy", table["answer"])
    np.save(tmp_path / "w.npy", table["w"])
    loaded = values(tmp_path / "x.npy", "y.npy", weights="w.npy")
    assert_array_equal(loaded.train.weights, table["w"])
    with pytest.raises(DataError, match="no names, so drop = .* cannot be found"):
        values(tmp_path / "x.npy", "y.npy", drop=["a"])
    with pytest.raises(DataError, match="which file holds the weights"):
        from mpi4py import MPI

        read_again(tmp_path / "x.npy", loaded.schema, MPI.COMM_SELF, target="y.npy")


def test_gaps_in_a_large_array_are_filled_where_it_stays(tmp_path, monkeypatch):
    from pympi_train.data.loading import finish
    from pympi_train.data.sources.mapped import MappedDataset

    x = np.random.default_rng(1).standard_normal((60, 3))
    x[::7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    how = {"missing": "median", "missing_indicator": True, "standardize": True}
    resident = values(tmp_path / "x.npy", "y.npy", **how)
    monkeypatch.setattr(finish, "RESIDENT_BYTES", 100)
    mapped = values(tmp_path / "x.npy", "y.npy", **how)
    assert isinstance(mapped.train, MappedDataset)
    assert mapped.train.x.shape == (60, 4) == resident.train.x.shape
    assert_array_equal(mapped.train.x[:], resident.train.x)
    drop = values(tmp_path / "x.npy", "y.npy", missing="drop")
    assert isinstance(drop.train, MappedDataset) and drop.train.n == 51
