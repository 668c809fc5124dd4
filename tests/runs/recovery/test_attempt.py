"""Ranks that go on from the state of one of them: nothing is lost.

No rank dies here; tests/runs/test_survive.py kills some.
"""

import pytest
from small_runs import ADAM, records, train_small

from pympi_train.errors import DataError
from pympi_train.runs.recovery.attempt import Attempt, resume_point

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


def train(folder, comm, overrides, **how):
    every = "checkpoint.every_steps=3"
    return train_small(folder, comm, *ADAM, *overrides, every, **how)


def ended(folder, comm, how, kind=Ends):
    attempt = kind()
    with pytest.raises(DataError, match="as if"):
        train(folder, comm, how, attempt=attempt)
    attempt.abandon()
    assert attempt.has_begun and attempt.has_saved
    return attempt


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
