"""A trained run back in Python, without MPI."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.config import config as configuration
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs import job

TEXT = """
[data]
train = "rows.csv"
target = "kind"
standardize = true
[model]
kind = "{kind}"
{more}
[train]
epochs = 3
batch_size = 16
micro_batch_size = 7
[output]
directory = "run"
"""


def rows(n=40):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 2)) * [3, 0.1] + [10, -1]


def trained(folder, kind="softmax", more=""):
    from mpi4py import MPI

    x = rows()
    kinds = np.where(x[:, 0] > 10, "high", "low")
    if kind == "linear":
        kinds = 4e5 + 1e4 * x[:, 0]
    lines = [f"{a!r},{b!r},{label}" for (a, b), label in zip(x.tolist(), kinds)]
    (folder / "rows.csv").write_text("\n".join(["a,b,kind", *lines]) + "\n")
    text = TEXT.format(kind=kind, more=more)
    job.train(configuration.parse(text, folder=folder), MPI.COMM_SELF)
    return folder / "run"


@pytest.mark.parametrize("kind", ["softmax", "logistic"])
def test_labels_and_probabilities(tmp_path, kind):
    model = pt.load_model(trained(tmp_path, kind))
    labels, proba = model.predict(rows()), model.predict_proba(rows())
    assert model.schema.classes.tolist() == ["high", "low"]
    assert proba.shape == (40, 2)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert_array_equal(model.schema.classes[proba.argmax(axis=1)], labels)
    assert_array_equal(labels, model.predict(rows().tolist()))
    assert model.predict(rows(0)).shape == (0,)
    assert model.predict_proba(rows(0)).shape == (0, 2)


def test_numbers_in_their_own_units(tmp_path):
    run = trained(tmp_path, "linear", '[optimizer]\nname = "lbfgs"')
    model = pt.load_model(str(run), backend="numpy")
    assert_allclose(model.predict(rows()), 4e5 + 1e4 * rows()[:, 0], rtol=1e-3)
    with pytest.raises(DataError, match="this is a regression"):
        model.predict_proba(rows())


def test_a_folder_whose_name_has_a_dollar(tmp_path, monkeypatch):
    """What is resolved is not expanded again: neither to train nor afterwards."""
    monkeypatch.setenv("B", "elsewhere")
    folder = tmp_path / "a$B$C"
    folder.mkdir()
    model = pt.load_model(trained(folder))
    assert model.config.data.train == str(folder / "rows.csv")
    assert len(model.predict(rows())) == 40


class Table:
    """As a data frame, in what is asked of it."""

    def __init__(self, **columns):
        self.columns = columns

    def __getitem__(self, name):
        return self.columns[name]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("a table of several types has no dtype of its own")


def test_columns_of_several_types(tmp_path):
    model = pt.load_model(trained(tmp_path))
    a, flags = rows()[:, 0], rows()[:, 0] > 10
    want = model.predict(np.column_stack([a, flags]))
    objects = np.empty((40, 2), dtype=object)
    objects[:, 0], objects[:, 1] = a, flags
    assert_array_equal(model.predict(objects), want)
    assert_array_equal(model.predict(Table(b=flags, a=a)), want)


def test_columns_of_a_table_are_found_by_name(tmp_path):
    model = pt.load_model(trained(tmp_path))
    a, b = rows().T
    want = model.predict(rows())
    assert_array_equal(model.predict(Table(b=b, other=b, a=a)), want)
    for columns in ({"a": a, "c": b}, {"A": a, "B": b}):
        with pytest.raises(DataError, match="x: no column '[ab]', which was trained"):
            model.predict(Table(**columns))


@pytest.mark.parametrize(
    "x, words",
    [
        (np.ones(2), r"numbers of shape \(rows, 2\), got float64 of \(2,\)"),
        (np.ones((3, 3)), r"numbers of shape \(rows, 2\), got float64 of \(3, 3\)"),
        (np.array([["a", "b"]]), "x, column 0 .*: expected numbers: got dtype <U1"),
        ([[1.0, 2.0], [1.0, float("nan")]], r"x, row 1, column 1 .*finite number, f"),
        ([[1.0, 2.0], [1.0]], "x: expected numbers in rows"),
        (np.array([[1.0, "a"]], dtype=object), "x, column 1 .*: expected numbers: "),
        ([[1.0, 1e300]], "too large for float32"),
    ],
)
def test_rows_that_do_not_fit(tmp_path_factory, x, words):
    model = pt.load_model(trained(tmp_path_factory.mktemp("run")))
    with pytest.raises(DataError, match=words):
        model.predict(x)


def test_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match="no such run directory"):
        pt.load_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="pass comm"):
        pt.load_model(trained(tmp_path), backend="cuda")


def test_neither_mpi_nor_its_library_is_needed(tmp_path):
    run = trained(tmp_path)
    code = f"""
import sys
sys.modules["mpi4py"] = None
import pympi_train as pt
print(pt.load_model({str(run)!r}).predict([[10.5, -1]])[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("high\n", "")


@pytest.mark.mpi(min_size=2)
def test_ranks_have_a_model_each(comm, mpi_tmp_path):
    if comm.rank == 0:
        trained(mpi_tmp_path)
    comm.Barrier()
    model = pt.load_model(mpi_tmp_path / "run", comm=comm)
    alone = pt.load_model(mpi_tmp_path / "run")
    mine = rows()[comm.rank :: comm.size]
    assert_array_equal(model.predict_proba(mine), alone.predict_proba(mine))
