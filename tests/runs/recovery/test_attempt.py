"""Ranks that go on from the state of one of them: nothing is lost.

No rank dies here; tests/runs/test_survive.py kills some.
"""

import json

import numpy as np
import pytest

from pympi_train.config.config import parse
from pympi_train.errors import DataError
from pympi_train.runs import job, output
from pympi_train.runs.recovery.attempt import Attempt, resume_point

TEXT = """
[data]
train = "rows.npz"
validation = 0.2
[model]
kind = "mlp"
hidden = [6]
[optimizer]
name = "adam"
learning_rate = 0.01
schedule = "cosine"
[train]
epochs = 4
batch_size = 16
backend = "numpy"
[output]
directory = "run"
"""
STEPS = 8  # of 20: in the second epoch
CASES = {
    "allreduce": ["parallel.strategy=allreduce"],
    "exact": ["parallel.reduction=exact"],
    "patience": ["train.patience=2", "optimizer.learning_rate=0.3"],
}


class Ends(Attempt):
    """A training that ends after some steps, on all ranks."""

    def add_step(self):
        super().add_step()
        if self._steps == STEPS:
            raise DataError("as if a rank had died")


class Torn(Ends):
    """As if a rank had died between an update and the notes about it."""

    def add_step(self):
        if self._trainer.steps < STEPS:
            super().add_step()
        else:
            raise DataError("as if a rank had died")


@pytest.fixture
def folder(mpi_tmp_path, comm):
    if comm.rank == 0:
        rng = np.random.default_rng(3)
        x = rng.standard_normal((100, 5)) + np.arange(100)[:, None] % 3
        np.savez(mpi_tmp_path / "rows.npz", x=x, y=np.arange(100) % 3)
    comm.Barrier()
    return mpi_tmp_path


def train(folder, comm, overrides, resume=None, attempt=None, name="run"):
    where = ["checkpoint.every_steps=3", f"output.directory={name}"]
    config = parse(TEXT, folder=folder, overrides=[*overrides, *where])
    return job.train(config, comm, resume=resume, attempt=attempt)


def ended(folder, comm, how, kind=Ends):
    attempt = kind()
    with pytest.raises(DataError, match="as if"):
        train(folder, comm, how, attempt=attempt)
    attempt.abandon()
    assert attempt.has_begun and attempt.has_saved
    return attempt


def records(folder, name):
    lines = (folder / name / output.METRICS).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {k: v for k, v in record.items() if k[-2:] != "_s" and k != "sent_bytes"}
        for record in found
    ]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("case", CASES)
def test_goes_on_from_the_state_of_one_rank(comm, folder, case):
    how = CASES[case]
    want = train(folder, comm, how, name="whole")
    attempt = ended(folder, comm, how)
    # The last rank alone has a state: the others died before, or are a step behind.
    mine = Attempt(attempt) if comm.rank == comm.size - 1 else Attempt()
    point = resume_point(mine, comm)
    assert point.saved.state.values["progress"]["steps"] == STEPS
    assert [record["epoch"] for record in point.records] == [1]
    found = train(folder, comm, how, resume=point)
    for key in ("weights_sha256", "epochs", "steps", "kept_epoch", "ended"):
        assert found[key] == want[key]
    if comm.rank == 0:
        assert records(folder, "run") == records(folder, "whole")


@pytest.mark.mpi(min_size=2)
def test_the_oldest_state_is_taken_if_all_that_have_it_agree(comm, folder):
    attempt = ended(folder, comm, CASES["exact"])
    progress, state = attempt.replica()
    assert progress == 2 * STEPS
    params = [r for name, rs in state.regions.items() if "params" in name for r in rs]
    if comm.rank != 0:  # a step ahead, and wrong
        attempt.replica = lambda: (progress + 2, state)
        params[0].array[...] += 1.0
    found = resume_point(attempt, comm).saved.state
    found = comm.allgather(content(found))
    assert found == found[:1] * comm.size
    if comm.rank == 0:
        assert found[0] == content(state)
    attempt.replica = lambda: (progress, state)  # not ahead, but still wrong
    assert resume_point(attempt, comm) is None


def content(state):
    return {k: [r.array.tobytes() for r in rs] for k, rs in state.regions.items()}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["strategy=sharded", "compression=int8"])
def test_what_is_spread_is_not_rebuilt(comm, folder, how):
    attempt = ended(folder, comm, [f"parallel.{how}"])
    assert resume_point(attempt, comm) is None


@pytest.mark.mpi(min_size=2)
def test_state_between_update_and_notes_is_not_taken(comm, folder):
    attempt = ended(folder, comm, CASES["exact"], Torn)
    assert attempt.replica() == (-1, None)
    assert resume_point(attempt, comm) is None
    assert resume_point(Attempt(), comm) is None
