"""A training ends in time to save, by the times of its steps and saves."""

import time
from types import SimpleNamespace

import pytest
from small_runs import ADAM, train_small, write_rows

from pympi_train.checkpoint import store
from pympi_train.runs.recovery import checkpoints

LIMIT_S, FIRST_STEP_S, SAVE_S = 80.0, 30.0, 5.0


STEPS = {2.0: range(11, 14), 0.5: [20]}  # with seconds of a step


@pytest.mark.parametrize("step_s", STEPS)
def test_it_saves_before_the_limit_and_not_long_before(tmp_path, monkeypatch, step_s):
    from mpi4py import MPI

    clock, ended_s = SimpleNamespace(now_s=0.0), []
    on_step, next_path = checkpoints.Checkpoints.on_step, store.next_path

    def stepping(self):
        clock.now_s += step_s if self._trainer.steps > 1 else FIRST_STEP_S
        on_step(self)

    def saving(*args):
        clock.now_s += SAVE_S
        ended_s.append(clock.now_s)
        return next_path(*args)

    monkeypatch.setattr(checkpoints.Checkpoints, "on_step", stepping)
    monkeypatch.setattr(store, "next_path", saving)
    clocks = {"monotonic": lambda: clock.now_s, "time": time.time}
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(**clocks))
    deadline = SimpleNamespace(left_s=lambda: LIMIT_S - clock.now_s)
    monkeypatch.setattr(checkpoints, "Deadline", lambda *args: deadline)
    write_rows(tmp_path)
    how = [*ADAM, "checkpoint.every_steps=4", "checkpoint.asynchronous=false"]
    found = train_small(tmp_path, MPI.COMM_SELF, *how)
    assert found.get("step", found.get("steps")) in STEPS[step_s]
    assert ended_s[-1] <= LIMIT_S
    assert ("interrupted" in found) == (step_s == 2.0)
