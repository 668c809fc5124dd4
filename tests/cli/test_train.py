"""What a training leaves, and that it can be used again."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors import safe_open

import pympi_train

METRICS = {
    "epoch",
    "step",
    "samples",
    "train_loss",
    "validation_loss",
    "samples_per_s",
    "compute_s",
    "communication_s",
    "update_s",
    "input_s",
}
RESULT = {
    "ranks",
    "epochs",
    "steps",
    "samples_seen",
    "train_loss",
    "validation",
    "wall_s",
    "samples_per_s",
    "parameters",
    "weights_sha256",
}
FILES = {
    "weights.safetensors",
    "config.toml",
    "schema.json",
    "metrics.jsonl",
    "result.json",
    "checkpoints",
}
TO_NUMBERS = ["data.train=numbers.csv", "model.kind=linear"]
DEEP = ["model.kind=mlp", "model.hidden=[4,4,4,4,4,4,4,4,4,4,4]"]


def last_line(done):
    return json.loads(done.out.splitlines()[-1])


def hash_of_file(path):
    """SHA-256 over the tensors of a file in model order, as anybody would do it."""
    digest = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in json.loads(file.metadata()["order"]):
            digest.update(file.get_tensor(name).tobytes())
    return digest.hexdigest()


@pytest.fixture
def train(pympi_train):
    """Train c.toml, or another, with overrides; returns the JSON result."""

    def run(*overrides, config="c.toml"):
        argv = ["train", config, "--json", "--set", "train.seed=1", *overrides]
        done = pympi_train(*argv)
        assert done.status == 0, done.err
        return last_line(done) if done.out else None

    return run


def test_files(folder, train):
    train()
    assert {path.name for path in (folder / "run").iterdir()} == FILES


@pytest.mark.parametrize(
    "overrides, quality",
    [([], {"accuracy"}), (TO_NUMBERS, {"rmse", "r2"})],
    ids=["classification", "regression"],
)
def test_metrics_and_result(folder, train, overrides, quality):
    result = train(*overrides)
    text = (folder / "run" / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    for epoch, record in enumerate(records, start=1):
        assert METRICS | quality <= set(record)
        # 30 rows are left to train on, in batches of 8.
        assert (record["epoch"], record["step"]) == (epoch, 4 * epoch)
        assert record["samples"] == 30 * epoch
    assert len(records) == 2
    assert RESULT <= set(result)
    assert set(result["validation"]) == {"loss"} | quality
    assert (result["ranks"], result["epochs"], result["steps"]) == (1, 2, 8)
    assert result["samples_seen"] == 60
    assert result["train_loss"] == records[-1]["train_loss"]
    assert result["validation"]["loss"] == records[-1]["validation_loss"]
    for name in quality:
        assert result["validation"][name] == records[-1][name]
    assert result["parameters"] == (9 if quality == {"accuracy"} else 3)
    assert result["wall_s"] > 0 and result["samples_per_s"] > 0
    assert json.loads((folder / "run" / "result.json").read_text()) == result


def test_phases_are_no_longer_than_the_epoch(folder, train):
    train()
    for line in (folder / "run" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        phases = [record[f"{name}_s"] for name in ("input", "compute", "update")]
        phases.append(record["communication_s"])
        assert min(phases) >= 0
        assert sum(phases) <= record["wall_s"]


def test_result_without_validation_rows(folder, train):
    result = train("data.validation=0")
    assert result["validation"] is None
    assert result["samples_seen"] == 80


@pytest.mark.parametrize("overrides", [[], DEEP, ["model.dtype=float64"], TO_NUMBERS])
def test_hash_is_that_of_the_file_of_weights(folder, train, overrides):
    found = train(*overrides)["weights_sha256"]
    assert hash_of_file(folder / "run" / "weights.safetensors") == found


def test_seed_decides(folder, train):
    hashes = [train(f"train.seed={s}", *DEEP)["weights_sha256"] for s in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        DEEP,
        TO_NUMBERS,
        ["model.class_weights={low=2}", "data.validation=good.csv"],
        ["data.train=good.npz", "data.features=X", "optimizer.name=lbfgs"],
        ["train.patience=1", "train.monitor=accuracy", "optimizer.clip_norm=0.1"],
    ],
)
def test_resolved_configuration_trains_the_same_again(folder, train, overrides):
    first = train(*overrides)
    config = folder / "elsewhere.toml"
    config.write_bytes((folder / "run" / "config.toml").read_bytes())
    assert "auto" not in config.read_text().split("backend = ")[1].splitlines()[0]
    again = train(f"output.directory={folder}/again", config=config)
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["train_loss"] == first["train_loss"]


def test_resolved_configuration_trains_in_its_own_place(folder, train):
    first = train()
    again = train(config=folder / "run" / "config.toml")
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["directory"] == first["directory"]


def test_second_run_replaces_the_first(folder, train):
    train(*DEEP)
    (folder / "run" / "notes.txt").write_text("mine")
    result = train("train.epochs=1")
    run = folder / "run"
    assert {path.name for path in run.iterdir()} == FILES | {"notes.txt"}
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert hash_of_file(run / "weights.safetensors") == result["weights_sha256"]
    assert 'kind = "softmax"' in (run / "config.toml").read_text()


def test_json_is_the_last_line_and_the_rest_is_for_people(folder, pympi_train):
    done = pympi_train("train", "c.toml", "--json")
    assert len(done.out.splitlines()) == 1
    assert "train loss" in done.err
    done = pympi_train("train", "c.toml")
    assert done.err == ""
    assert done.out.count("train loss") == 2  # head of the table, and the result
    assert "written" in done.out.splitlines()[-2]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_validation_loss_that_is_infinite_is_null_in_json(folder, train):
    huge = (folder / "numbers.csv").read_text().replace("-1.25", "1e200")
    (folder / "huge.csv").write_text(huge)
    overrides = [*TO_NUMBERS, "data.validation=huge.csv", "model.dtype=float64"]
    result = train(*overrides, "train.epochs=1")
    assert result["validation"]["loss"] is None
    assert result["train_loss"] > 0


def evaluated(pympi_train, *arguments):
    done = pympi_train("evaluate", "run", "--json", *arguments)
    assert done.status == 0, done.err
    return last_line(done) if done.out else None


@pytest.mark.parametrize("overrides", [[], TO_NUMBERS, DEEP])
def test_evaluation_reproduces_the_numbers_of_training(
    folder, train, pympi_train, overrides
):
    file = "numbers.csv" if overrides is TO_NUMBERS else "good.csv"
    want = train(*overrides, f"data.validation={file}")["validation"]
    found = evaluated(pympi_train, "--data", file)
    assert found.pop("samples") == 40
    assert found.pop("ranks") == 1
    assert found == want


def test_evaluation_for_people(folder, train, pympi_train):
    want = train("data.validation=good.csv")["validation"]
    done = pympi_train("evaluate", "run", "--data", "good.csv")
    lines = dict(line.split() for line in done.out.splitlines())
    assert lines["samples"] == "40"
    assert float(lines["loss"]) == pytest.approx(want["loss"], rel=1e-5)
    assert float(lines["accuracy"]) == pytest.approx(want["accuracy"], rel=1e-5)


def test_other_arrays_of_the_file_are_evaluated_by_name(folder, train, pympi_train):
    with np.load(folder / "good.npz") as arrays:
        x, y = arrays["X"], arrays["y"]
    np.savez(folder / "all.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    train("data.train=all.npz", "data.features=x_train", "data.target=y_train")
    seen = pympi_train("evaluate", "run", "--data", "all.npz")
    assert "remark: this is the file of the training" in seen.err
    assert "samples   40" in seen.out
    names = ["--features", "x_test", "--target", "y_test"]
    done = pympi_train("evaluate", "run", "--data", "all.npz", *names)
    assert "samples   7" in done.out and done.err == ""
    names = ["--features", "x_test", "--output", "p.npy"]
    done = pympi_train("predict", "run", "--data", "all.npz", *names)
    assert "7 predictions" in done.out


def test_target_is_relative_to_the_working_directory(folder, train, pympi_train):
    with np.load(folder / "good.npz") as arrays:
        np.save(folder / "labels.npy", arrays["y"])
    train("data.train=x.npy", "data.target=labels.npy")
    (folder / "sub").mkdir()
    (folder / "sub" / "x.npy").write_bytes((folder / "x.npy").read_bytes())
    found = [
        evaluated(pympi_train, "--data", data, "--target", "labels.npy")
        for data in ("x.npy", "sub/x.npy")
    ]
    assert found[0] == found[1]


def predicted(pympi_train, folder, data):
    done = pympi_train("predict", "run", "--data", data, "--output", "p.npy", "--json")
    assert done.status == 0, done.err
    found = np.load(folder / "p.npy", allow_pickle=False)
    if done.out:
        assert last_line(done)["samples"] == len(found)
    return found


def labels_of(path):
    lines = path.read_text().splitlines()[1:]
    return np.array([line.split(",")[-1] for line in lines])


def test_predictions_are_labels_as_they_came(folder, train, pympi_train):
    result = train("data.validation=good.csv", "train.epochs=30")
    accuracy = result["validation"]["accuracy"]
    found = predicted(pympi_train, folder, "good.csv")
    assert found.dtype.kind == "U"
    assert set(found) == {"low", "mid", "high"}
    # In the order of the rows, so that it is the labels of these that are hit.
    assert np.mean(found == labels_of(folder / "good.csv")) == accuracy > 0.8


def test_predictions_are_integers_where_labels_are(folder, train, pympi_train):
    train("data.train=integers.csv", "train.epochs=30")
    found = predicted(pympi_train, folder, "integers.csv")
    assert found.dtype == np.int64
    assert np.mean(found == labels_of(folder / "integers.csv").astype(int)) > 0.8


def test_predictions_are_numbers_in_a_regression(folder, train, pympi_train):
    train(*TO_NUMBERS, "data.validation=0", "data.standardize=false")
    found = predicted(pympi_train, folder, "numbers.csv")
    with safe_open(folder / "run" / "weights.safetensors", framework="np") as file:
        parts = {name: file.get_tensor(name) for name in file.keys()}
    weight = next(part for part in parts.values() if part.size == 2)
    intercept = next(part for part in parts.values() if part.size == 1)
    x = np.loadtxt(folder / "numbers.csv", delimiter=",", skiprows=1)[:, :2]
    want = x.astype("float32") @ weight.ravel() + intercept
    assert found.shape == (40,)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_prediction_wants_columns_by_name_and_no_target(folder, train, pympi_train):
    train()
    want = predicted(pympi_train, folder, "good.csv")
    lines = [line.split(",") for line in (folder / "good.csv").read_text().splitlines()]
    swapped = "\n".join(f"{b},{a}" for a, b, _ in lines)
    (folder / "swapped.csv").write_text(swapped)
    assert_array_equal(predicted(pympi_train, folder, "swapped.csv"), want)


def test_prediction_replaces_an_earlier_file(folder, train, pympi_train):
    train()
    (folder / "p.npy").write_text("old")
    predicted(pympi_train, folder, "good.csv")
    assert not list(folder.glob("*.tmp"))


@pytest.mark.mpi(min_size=2)
class TestRanks:
    """The same at any number of ranks: each runs the command."""

    def test_run_evaluated_and_predicted(self, shared_folder, comm, train, pympi_train):
        result = train("data.validation=good.csv", "train.epochs=30")
        comm.Barrier()
        measured = evaluated(pympi_train, "--data", "good.csv")
        found = predicted(pympi_train, shared_folder, "good.csv")
        hits = np.mean(found == labels_of(shared_folder / "good.csv"))
        assert hits > 0.8  # in the order of the rows
        if comm.rank > 0:
            assert result is measured is None
            return
        assert result["ranks"] == measured["ranks"] == comm.size
        assert result["validation"]["accuracy"] == measured["accuracy"] == hits
        weights = shared_folder / "run" / "weights.safetensors"
        assert hash_of_file(weights) == result["weights_sha256"]
        assert {path.name for path in weights.parent.iterdir()} == FILES

    def test_fewer_rows_than_ranks(self, shared_folder, comm, train, pympi_train):
        train("train.epochs=30")
        if comm.rank == 0:
            lines = (shared_folder / "good.csv").read_text().splitlines()
            (shared_folder / "one.csv").write_text("\n".join(lines[:2]))
        comm.Barrier()
        found = predicted(pympi_train, shared_folder, "one.csv")
        assert found.tolist() == ["low"]
        measured = evaluated(pympi_train, "--data", "one.csv")
        if comm.rank == 0:
            assert (measured["samples"], measured["accuracy"]) == (1, 1.0)


IMPORTED = """
import sys
from pympi_train.cli import main

status = main(["train", "c.toml"])
from mpi4py import MPI

ours = "pympi_train.runs.terminal.console", "pympi_train.runs.curves"
names = ("tqdm", "matplotlib", *ours)
loaded = [name for name in names if name in sys.modules]
with open(f"loaded.{MPI.COMM_WORLD.rank}", "w") as file:
    file.write(f"{status} {','.join(loaded)}")
"""


def test_job_of_three_ranks(mpirun, folder):
    done = mpirun(3, [sys.executable, "-c", IMPORTED], cwd=folder)
    assert done.returncode == 0, done.stderr
    loaded = [(folder / f"loaded.{rank}").read_text() for rank in range(3)]
    # No tqdm: output is no terminal.
    console = "pympi_train.runs.terminal.console,pympi_train.runs.curves"
    assert loaded == [f"0 {console}", "0 ", "0 "]
    for once in ("data     ", "train loss  ", "result  ", "written  "):
        assert done.stdout.count(once) == 1
    assert "ranks    3" in done.stdout


def test_configuration_in_the_run_directory_is_not_overwritten(folder, pympi_train):
    own = (folder / "c.toml").rename(folder / "config.toml")
    text = own.read_text()
    done = pympi_train("train", "config.toml", "--set", "output.directory=.")
    assert done.status == 2
    assert "holds config.toml, which no run of this program wrote" in done.err
    assert own.read_text() == text


def test_reader_that_went_away_fails_nothing(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pympi_train", "train", "c.toml"],
        env={**os.environ, "PYTHONPATH": str(Path(pympi_train.__file__).parents[1])},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (folder / "run").iterdir()} == FILES


def test_interrupted_training_has_a_status_of_its_own(folder, pympi_train):
    hurry = ["--set", "checkpoint.max_time=0.001"]
    done = pympi_train("train", "c.toml", "--json", *hurry)
    assert done.status == 75
    told = json.loads(done.out)
    assert (told["step"], told["epoch"]) == (1, 0)
    assert "the time of the job is nearly over; the same command with" in done.err
    names = os.listdir(folder / "run" / "checkpoints")
    assert names == ["000001-step-1"]
    done = pympi_train("train", "c.toml", "--resume", "--json")
    assert (done.status, json.loads(done.out)["steps"]) == (0, 8)
    assert "000001-step-1: 1 step, 0 epochs done" in done.err
    done = pympi_train("train", "c.toml", "--resume")
    assert done.status == 0 and "2 epochs, nothing is left to do" in done.out


def test_a_configuration_is_checked(folder, pympi_train):
    done = pympi_train("check", "c.toml", "--set", "data.train=good.npz")
    lines = done.out.splitlines()
    assert done.status == 0 and "good.npz: 30 rows x 2 features" in lines[0]
    assert lines[-1] == "checked  nothing was trained, nothing was written"
    assert not (folder / "run").exists()
    done = pympi_train("check", "c.toml", "--json")
    assert json.loads(done.out)["steps_per_epoch"] == 4
    assert pympi_train("check", "c.toml", "--set", "train.epochs=0").status == 2
