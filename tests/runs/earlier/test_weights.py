"""Runs and checkpoints serve as trained models, and as a start of other trainings."""

import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from small_runs import make_rows, train_small

import pympi_train as pt
from pympi_train.errors import DataError
from pympi_train.runs import output
from pympi_train.runs.inference import Run

HOW = [
    "data.validation=0",
    "model.dtype=float64",
    "train.epochs=2",
    "checkpoint.every_steps=3",
    "checkpoint.keep=9",
]


def rows():
    x, kinds = make_rows(64)
    return x, np.array(["a", "b", "c"])[kinds]


def train(folder, comm, *overrides, **how):
    if comm.rank == 0:
        x, y = rows()
        np.savez(folder / "rows.npz", x=x, y=y)
    comm.Barrier()
    return train_small(folder, comm, *HOW, *overrides, **how)


@pytest.fixture
def run(comm, mpi_tmp_path):
    train(mpi_tmp_path, comm, "parallel.strategy=sharded", "parallel.stage=3")
    return mpi_tmp_path / "run"


def checkpoint(run, i=-1):
    folder = run / "checkpoints"
    return folder / sorted(os.listdir(folder))[i]


@pytest.mark.mpi(min_size=2)
def test_checkpoint_is_a_model(comm, run, mpi_tmp_path):
    last, first = checkpoint(run), checkpoint(run, 0)
    x, y = rows()
    of_run = pt.load_model(run, comm=comm)
    for found in (pt.load_model(last, comm=comm), pt.load_model(last)):
        for name, view in of_run.weights().items():
            assert_array_equal(found.weights()[name], view)
        assert_array_equal(found.predict(x), of_run.predict(x))
    earlier = pt.load_model(first)
    assert (earlier.block != of_run.block).any()
    found = Run(first, comm)
    measured = found.evaluate(mpi_tmp_path / "rows.npz")
    assert measured["accuracy"] == (earlier.predict(x) == y).mean()
    found.predict(mpi_tmp_path / "rows.npz", mpi_tmp_path / "y.npy")
    assert_array_equal(np.load(mpi_tmp_path / "y.npy"), earlier.predict(x))


@pytest.mark.mpi(min_size=2)
def test_run_that_has_not_ended_names_its_newest_checkpoint(comm, run):
    newest = checkpoint(run)
    if comm.rank == 0:
        (run / output.WEIGHTS).unlink()
    comm.Barrier()
    told = f"train --resume, or name a checkpoint, such as the newest, {newest}"
    with pytest.raises(DataError, match=f"no weights.safetensors: .*{told}"):
        Run(run, comm)
    with pytest.raises(DataError, match=f"name one, such as the newest, {newest}"):
        pt.load_model(run / "checkpoints")


@pytest.mark.mpi(min_size=2)
def test_a_flipped_bit_of_the_weights_is_found(comm, run):
    if comm.rank == 0:
        with open(run / output.WEIGHTS, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
    comm.Barrier()
    with pytest.raises(DataError, match="do not have the weights_sha256 of result"):
        Run(run, comm)
    with pytest.raises(DataError, match="do not have the weights_sha256 of result"):
        train(run.parent, comm, "train.init=run", "output.directory=two")
    if comm.rank == 0:
        (run / output.RESULT).write_text("[]")
    comm.Barrier()
    with pytest.raises(DataError, match="result.json: cannot be read: expected an obj"):
        pt.load_model(run, comm=comm)
    if comm.rank == 0:
        (run / output.RESULT).unlink()
    comm.Barrier()
    pt.load_model(run, comm=comm)  # what was changed on purpose


@pytest.mark.mpi(min_size=2)
def test_damaged_checkpoint_is_no_model(comm, run):
    last, first = checkpoint(run), checkpoint(run, 0)
    if comm.rank == 0:
        with open(last / "schema.json", "a") as file:
            file.write(" ")
        with open(first / "rank-000000.safetensors", "rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\7")
    comm.Barrier()
    with pytest.raises(DataError, match="schema.json: expected .* bytes, found"):
        Run(last, comm)
    with pytest.raises(DataError, match="000000.safetensors: its BLAKE2 hash"):
        pt.load_model(first)


def test_checkpoint_of_the_library_has_no_model(tmp_path):
    with pt.Trainer(pt.Linear(2), pt.SGD(0.1), backend="numpy") as trainer:
        trainer.save(tmp_path / "one")
    with pytest.raises(DataError, match="no config.toml: pympi-train train did not"):
        pt.load_model(tmp_path / "one")


class Lines:
    """A console that keeps the lines on the start."""

    def __getattr__(self, name):
        return lambda *ignored: None

    def tell_start(self, lines):
        self.lines = lines


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["allreduce", "sharded", "server"])
def test_training_starts_from_a_run_or_a_checkpoint(comm, run, mpi_tmp_path, how):
    """One without learning has the weights that it began with."""
    first, still = checkpoint(run, 0), "optimizer.learning_rate=1e-30"
    into = [f"parallel.strategy={how}", still, "train.epochs=1", "output.directory=two"]
    for source in ("run", first):
        console = Lines() if comm.rank == 0 else None
        train(mpi_tmp_path, comm, f"train.init={source}", *into, console=console)
        want = pt.load_model(mpi_tmp_path / source)
        assert_array_equal(pt.load_model(mpi_tmp_path / "two").block, want.block)
        if comm.rank == 0:
            path = mpi_tmp_path / source
            assert console.lines == [f"init     {path}: 4 of 4 tensors"]


@pytest.mark.mpi(min_size=2)
def test_what_does_not_fit_is_told_once(comm, run, mpi_tmp_path):
    console = Lines() if comm.rank == 0 else None
    other = ["train.init=run", "output.directory=two", "train.epochs=1"]
    train(mpi_tmp_path, comm, *other, "model.hidden=[6,3]", console=console)
    if comm.rank == 0:
        n, warning = console.lines
        assert n.endswith("run: 4 of 6 tensors")
        assert "layers.2.weight is not there; layers.2.bias is not there" in warning
        assert warning.endswith("; the others keep their initial values")
    with pytest.raises(DataError, match="init .*run: no tensor fits the model: w"):
        train(mpi_tmp_path, comm, *other, "model.kind=softmax")
    with pytest.raises(DataError, match="nothing: no such run directory"):
        train(mpi_tmp_path, comm, *other[1:], "train.init=nothing")


@pytest.mark.mpi(min_size=2)
def test_resume_takes_precedence(comm, run, mpi_tmp_path):
    """A resumed training goes on from its own checkpoint; without one, init counts."""
    into = ["train.init=run", "output.directory=two", "train.epochs=1"]
    still = "optimizer.learning_rate=1e-30"
    train(mpi_tmp_path, comm, *into, still, resume="newest")
    want = pt.load_model(run).block
    assert_array_equal(pt.load_model(mpi_tmp_path / "two").block, want)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(run)
        (mpi_tmp_path / "two" / output.RESULT).unlink()
    comm.Barrier()
    train(mpi_tmp_path, comm, *into[:2], "train.epochs=2", still, resume="newest")
    assert_array_equal(pt.load_model(mpi_tmp_path / "two").block, want)
