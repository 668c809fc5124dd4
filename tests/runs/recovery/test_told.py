"""What a run keeps of its checkpoints, and what it says of them."""

import io
import os
from pathlib import Path

import pytest
from mpi4py import MPI
from small_runs import ADAM, records, train_small, write_rows

from pympi_train.checkpoint import store
from pympi_train.runs.recovery import checkpoints
from pympi_train.runs.terminal.console import Console

ALONE = MPI.COMM_SELF
EVERY = "checkpoint.every_steps=5"  # an epoch


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path)
    return tmp_path


@pytest.fixture
def said(folder):
    """Return a function that trains and returns the lines that are printed."""

    def train(*overrides, **how):
        stream = io.StringIO()
        how["console"] = Console(stream)
        train_small(folder, ALONE, *ADAM, *overrides, **how)
        return stream.getvalue().splitlines()

    return train


def test_the_newest_and_the_best_checkpoint_are_kept(folder):
    how = [*ADAM, "optimizer.learning_rate=0.1", "train.epochs=12", EVERY]
    train_small(folder, ALONE, *how, "checkpoint.keep=2")
    losses = [record["validation_loss"] for record in records(folder)]
    best = 1 + losses.index(min(losses))
    assert 1 < best < 10
    entries = store.entries(folder / "run" / "checkpoints")
    assert [entry.step for entry in entries] == [5 * best, 55, 60]


def test_it_says_that_a_checkpoint_could_not_be_written(folder, said):
    (folder / "taken").write_text("a file")
    lines = said(EVERY, "checkpoint.directory=taken/in")
    warnings = [line for line in lines if line.startswith("warning  no checkpoint: ")]
    assert len(warnings) >= 4
    assert all("taken" in w and w.endswith("the training goes on") for w in warnings)


def test_it_says_once_that_there_is_no_room_for_a_copy(said, monkeypatch):
    monkeypatch.setattr(checkpoints, "available_bytes", lambda: 0)
    lines = said(EVERY)
    assert sum("too little memory for a copy" in line for line in lines) == 1


def test_it_says_what_was_passed_over(folder, said):
    said(EVERY, "checkpoint.keep=3")
    os.unlink(folder / "run" / "result.json")
    paths = [e.path for e in store.entries(folder / "run" / "checkpoints")]
    (Path(paths[-1]) / "rank-000000.safetensors").unlink()
    lines = said(EVERY, "checkpoint.keep=3", resume="newest")
    (told,) = [line for line in lines if "passed over" in line]
    assert paths[-1] in told and "missing" in told
    assert any(line.startswith(f"resumed  {paths[-2]}: ") for line in lines)
    os.unlink(folder / "run" / "result.json")
    for entry in store.entries(folder / "run" / "checkpoints"):
        (Path(entry.path) / "rank-000000.safetensors").unlink(missing_ok=True)
    lines = said(EVERY, resume="newest")
    assert "resumed  nothing: none is whole, training starts afresh" in lines
