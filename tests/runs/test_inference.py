"""A finished run evaluates and predicts on any number of ranks."""

import csv
import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.config import config as configuration
from pympi_train.errors import DataError
from pympi_train.runs import job, output
from pympi_train.runs.inference import Run
from pympi_train.runs.predictions import write_rows

N = 41
TEXT = """
[data]
train = "{name}"
target = "y"
validation = 0.25
standardize = true
[model]
kind = "{kind}"
hidden = [6]
task = "{task}"
dtype = "float64"
[optimizer]
learning_rate = 0.05
[train]
epochs = 4
batch_size = 8
micro_batch_size = 3
backend = "numpy"
[output]
directory = "run"
"""


def rows(n, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, 3)) * [1, 10, 0.1] + 5
    return x, np.array(["no", "yes", "perhaps"])[1 * (x[:, 0] > 5) + (x[:, 1] > 9)]


TARGETS = {
    "text": ("softmax", "classification", lambda x, labels: labels),
    "integers": (
        "mlp",
        "classification",
        lambda x, labels: np.where(labels == "yes", 10, -3),
    ),
    "two": ("logistic", "classification", lambda x, labels: labels == "yes"),
    "number": ("linear", "regression", lambda x, labels: x[:, 0] * 2),
    "numbers": ("mlp", "regression", lambda x, labels: x[:, :2] * 2),
}


def train(comm, folder, name):
    """Return the result of a training, whose run lies in ``folder / "run"``."""
    kind, task, target = TARGETS[name]
    x, labels = rows(N)
    if comm.rank == 0:
        np.savez(folder / "rows.npz", X=x, y=target(x, labels))
    comm.Barrier()
    text = TEXT.format(name="rows.npz", kind=kind, task=task)
    return job.train(configuration.parse(text, folder=folder), comm)


def write_other(comm, folder, name, n):
    """Write and return other rows: (path, x, y)."""
    x, labels = rows(n, seed=5)
    y = TARGETS[name][2](x, labels)
    if comm.rank == 0:
        np.savez(folder / "other.npz", X=x, y=y)
    comm.Barrier()
    return folder / "other.npz", x, y


def outputs(run, x):
    """What the run's model says of ``x``, computed at once in this process."""
    scaled = run.schema.preparation.scaling.apply(x)
    return run.model.predict(run.params, scaled).copy()


def flat(metrics):
    """Metrics with those of each target beside them, as `pytest.approx` needs it."""
    metrics = dict(metrics)
    of_targets = metrics.pop("targets", {})
    return metrics | {
        (target, name): value
        for target, found in of_targets.items()
        for name, value in found.items()
    }


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [1, 29])  # 1: all ranks but one have no row
@pytest.mark.parametrize("name", TARGETS)
def test_ranks_evaluate_and_predict_as_one_process(comm, mpi_tmp_path, name, n):
    from mpi4py import MPI

    train(comm, mpi_tmp_path, name)
    path, x, y = write_other(comm, mpi_tmp_path, name, n)
    run, alone = (Run(mpi_tmp_path / "run", c) for c in (comm, MPI.COMM_SELF))

    found, want = run.evaluate(path), alone.evaluate(path)
    assert (found.pop("ranks"), want.pop("ranks")) == (comm.size, 1)
    assert flat(found) == pytest.approx(flat(want), rel=1e-12)
    assert found["samples"] == n

    assert run.predict(path, mpi_tmp_path / "predictions.npy") == n
    predictions = np.load(mpi_tmp_path / "predictions.npy", allow_pickle=False)
    z = outputs(alone, x)
    if TARGETS[name][1] == "classification":
        classes = np.unique(TARGETS[name][2](*rows(N)))
        index = z.argmax(axis=1) if z.shape[1] > 1 else (z[:, 0] > 0).astype(int)
        assert_array_equal(predictions, classes[index])
        assert found["accuracy"] == pytest.approx((predictions == y).mean())
    else:  # in the targets' own units, and so are the metrics
        z = z * alone.schema.target_scaling.scale + alone.schema.target_scaling.mean
        assert_allclose(predictions, z.reshape(y.shape), rtol=1e-12)
        roots = np.sqrt(np.square(z - y.reshape(z.shape)).mean(axis=0))
        assert found["rmse"] == pytest.approx(roots.mean(), rel=1e-9)
        if z.shape[1] > 1:
            of_targets = [of["rmse"] for of in found["targets"].values()]
            assert of_targets == pytest.approx(roots, rel=1e-9)
    assert predictions.shape == y.shape
    assert not list(mpi_tmp_path.glob("*.tmp"))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["text", "numbers"])
def test_evaluation_of_held_out_rows_is_that_of_training(comm, mpi_tmp_path, name):
    from pympi_train.data.order import held_out, held_out_count

    result = train(comm, mpi_tmp_path, name)
    x, labels = rows(N)
    held = held_out(N, held_out_count(N, 0.25), 0, 0, N)
    if comm.rank == 0:
        target = TARGETS[name][2](x, labels)
        np.savez(mpi_tmp_path / "held.npz", X=x[held], y=target[held])
    comm.Barrier()
    found = Run(mpi_tmp_path / "run", comm).evaluate(mpi_tmp_path / "held.npz")
    assert found.pop("samples") == held.sum()
    assert found.pop("ranks") == comm.size
    assert flat(found) == pytest.approx(flat(result["validation"]), rel=1e-12)


@pytest.mark.mpi(min_size=2)
def test_predictions_need_no_target_and_no_known_label(comm, mpi_tmp_path):
    train(comm, mpi_tmp_path, "text")
    x, _ = rows(9, seed=5)
    paths = [mpi_tmp_path / f"{name}.npz" for name in ("without", "unknown", "known")]
    if comm.rank == 0:
        np.savez(paths[0], X=x)
        np.savez(paths[1], X=x, y=np.full(9, "never"))
        np.savez(paths[2], X=x, y=np.full(9, "no"))
    comm.Barrier()
    run, found = Run(mpi_tmp_path / "run", comm), []
    for path in paths:
        run.predict(path, mpi_tmp_path / "p.npy")
        comm.Barrier()
        found.append(np.load(mpi_tmp_path / "p.npy").tolist())
        comm.Barrier()
    assert found[0] == found[1] == found[2]
    with pytest.raises(DataError, match=r"unknown\.npz: row 0 .* label 'never'"):
        run.evaluate(paths[1])


@pytest.mark.mpi(min_size=2)
def test_place_that_cannot_be_written(comm, mpi_tmp_path):
    train(comm, mpi_tmp_path, "number")
    path, _, _ = write_other(comm, mpi_tmp_path, "number", 7)
    run = Run(mpi_tmp_path / "run", comm)
    with pytest.raises(DataError, match="absent/p.npy: cannot be written"):
        run.predict(path, mpi_tmp_path / "absent" / "p.npy")


@pytest.mark.mpi(min_size=2)
def test_places_that_hold_something_else(comm, mpi_tmp_path):
    train(comm, mpi_tmp_path, "number")
    path, _, _ = write_other(comm, mpi_tmp_path, "number", 7)
    links = {"data.npy": path, "of_run.npy": mpi_tmp_path / "run" / output.WEIGHTS}
    if comm.rank == 0:
        os.mkfifo(mpi_tmp_path / "pipe.npy")
        (mpi_tmp_path / "folder.npy").mkdir()
        for name, other in links.items():
            (mpi_tmp_path / name).symlink_to(other)
    comm.Barrier()
    before = [other.read_bytes() for other in links.values()]
    run = Run(mpi_tmp_path / "run", comm)
    for name, reason in (
        ("pipe.npy", "it is no regular file"),
        ("folder.npy", "Is a directory"),
        ("data.npy", "it is a file of the data"),
        ("of_run.npy", "it is a file of the run"),
        ("p.txt", "expected a name that ends in .npy or .csv"),
    ):
        with pytest.raises(DataError, match=f"{name}: cannot be written: {reason}"):
            run.predict(path, mpi_tmp_path / name)
    assert [other.read_bytes() for other in links.values()] == before
    assert (mpi_tmp_path / "pipe.npy").is_fifo()


def test_link_is_followed(tmp_path):
    from mpi4py import MPI

    train(MPI.COMM_SELF, tmp_path, "number")
    path, _, _ = write_other(MPI.COMM_SELF, tmp_path, "number", 7)
    (tmp_path / "link.npy").symlink_to(tmp_path / "p.npy")
    Run(tmp_path / "run", MPI.COMM_SELF).predict(path, tmp_path / "link.npy")
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "p.npy").shape == (7,)


@pytest.mark.mpi(min_size=2)
def test_directories_that_are_no_run(comm, mpi_tmp_path):
    train(comm, mpi_tmp_path, "number")
    whole = mpi_tmp_path / "run"
    with pytest.raises(DataError, match="absent: no such run directory"):
        Run(mpi_tmp_path / "absent", comm)
    for name in (output.WEIGHTS, output.SCHEMA, output.CONFIG):
        part = mpi_tmp_path / f"without {name}"
        if comm.rank == 0:
            shutil.copytree(whole, part)
            (part / name).unlink()
        with pytest.raises(DataError, match=f"no {name}"):
            Run(part, comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "tensors, text",
    [
        ({"weight": np.zeros((3, 1))}, "the model has"),
        (
            {"weight": np.zeros((4, 1)), "intercept": np.zeros(1)},
            r"weight has shape \(4, 1\), the model wants \(3, 1\)",
        ),
        (
            {"weight": np.full((3, 1), np.nan), "intercept": np.zeros(1)},
            "weight has NaN or infinity",
        ),
        (
            {"weight": np.zeros((3, 1), "int64"), "intercept": np.zeros(1)},
            "weight is int64, the model wants float64",
        ),
    ],
)
def test_weights_of_another_model(comm, mpi_tmp_path, tensors, text):
    from safetensors.numpy import save_file

    train(comm, mpi_tmp_path, "number")
    if comm.rank == 0:
        save_file(tensors, mpi_tmp_path / "run" / output.WEIGHTS)
        (mpi_tmp_path / "run" / output.RESULT).unlink()  # it has the weights' hash
    with pytest.raises(DataError, match=text):
        Run(mpi_tmp_path / "run", comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "old, new, text",
    [
        ('dtype = "float64"', 'dtype = "float32"', "dtype is 'float32' by config"),
        ('kind = "linear"', 'kind = "softmax"', "task is 'classification' by config"),
    ],
)
def test_configuration_of_another_run(comm, mpi_tmp_path, old, new, text):
    train(comm, mpi_tmp_path, "number")
    if comm.rank == 0:
        path = mpi_tmp_path / "run" / output.CONFIG
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=text):
        Run(mpi_tmp_path / "run", comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [1, 29])
@pytest.mark.parametrize("name", ["text", "two"])
def test_probabilities_of_all_classes(comm, mpi_tmp_path, name, n):
    """Also of a model with one output; in a .csv under the names of the classes."""
    train(comm, mpi_tmp_path, name)
    path, x, _ = write_other(comm, mpi_tmp_path, name, n)
    run = Run(mpi_tmp_path / "run", comm)
    out = {suffix: mpi_tmp_path / f"p.{suffix}" for suffix in ("npy", "csv")}
    for file in out.values():
        assert run.predict(path, file, proba=True) == n
    z = outputs(run, x)
    z = np.hstack([0 * z, z]) if z.shape[1] == 1 else z
    want = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    found = np.load(out["npy"])
    assert_allclose(found, want, rtol=1e-12)
    with open(out["csv"], newline="") as file:
        head, *lines = csv.reader(file)
    assert head == [str(label) for label in run.schema.classes]
    assert_array_equal(np.array(lines, dtype=found.dtype), found)
    assert_allclose(run.trained.predict_proba(x), found, rtol=1e-12)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", TARGETS)
def test_predictions_as_text(comm, mpi_tmp_path, name):
    train(comm, mpi_tmp_path, name)
    path, x, _ = write_other(comm, mpi_tmp_path, name, 29)
    run = Run(mpi_tmp_path / "run", comm)
    run.predict(path, mpi_tmp_path / "p.csv")
    run.predict(path, mpi_tmp_path / "p.npy")
    with open(mpi_tmp_path / "p.csv", newline="") as file:
        head, *lines = csv.reader(file)
    want = np.load(mpi_tmp_path / "p.npy")
    assert head == (["0", "1"] if name == "numbers" else ["y"])
    assert_array_equal(np.array(lines).astype(want.dtype).reshape(want.shape), want)
    again = run.trained.predict(x)  # all rows at once: products round otherwise
    if TARGETS[name][1] == "regression":
        assert_allclose(again, want, rtol=1e-12)
    else:
        assert_array_equal(again, want)
    if TARGETS[name][1] == "regression":
        for ask in (
            lambda: run.predict(path, mpi_tmp_path / "p.npy", proba=True),
            lambda: run.trained.predict_proba(x),
        ):
            with pytest.raises(DataError, match="this is a regression"):
                ask()


def test_training_data_are_not_overwritten(tmp_path):
    from mpi4py import MPI

    train(MPI.COMM_SELF, tmp_path, "number")
    path, _, _ = write_other(MPI.COMM_SELF, tmp_path, "number", 3)
    (tmp_path / "p.npy").symlink_to(tmp_path / "rows.npz")
    before = (tmp_path / "rows.npz").read_bytes()
    with pytest.raises(DataError, match="run was trained on it; choose another file"):
        Run(tmp_path / "run", MPI.COMM_SELF).predict(path, tmp_path / "p.npy")
    assert (tmp_path / "rows.npz").read_bytes() == before


def test_the_name_that_is_given_says_the_format(tmp_path):
    """Also where it is a link to a name that ends otherwise."""
    from mpi4py import MPI

    train(MPI.COMM_SELF, tmp_path, "text")
    path, _, _ = write_other(MPI.COMM_SELF, tmp_path, "text", 3)
    run = Run(tmp_path / "run", MPI.COMM_SELF)
    for suffix, first in ((".csv", b"y\n"), (".npy", b"\x93NUMPY")):
        (tmp_path / f"p{suffix}").symlink_to(tmp_path / f"real{suffix}.out")
        run.predict(path, tmp_path / f"p{suffix}")
        assert (tmp_path / f"real{suffix}.out").read_bytes().startswith(first)


def test_labels_that_need_quotes(tmp_path):
    from mpi4py import MPI

    path = tmp_path / "p.csv"
    labels = np.array(['a,"b"', "c", "d e", "ä"])
    write_rows(str(path), labels, 4, ['the "label"'], MPI.COMM_SELF)
    with open(path, newline="", encoding="utf-8") as file:
        assert [row for (row,) in csv.reader(file)] == ['the "label"', *labels]
