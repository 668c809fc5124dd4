"""A training that is tried leaves nothing, and says what it takes."""

import numpy as np
import pytest

from pympi_train.config import config as configuration
from pympi_train.errors import DataError
from pympi_train.runs import tryout
from pympi_train.runs.speech import seconds_text
from pympi_train.runs.tryout import describe_try, try_out

TEXT = """
[data]
train = "rows.npz"
validation = 0.2
[model]
kind = "softmax"
[train]
epochs = 7
batch_size = {batch_size}
[output]
directory = "run"
{more}
"""
N = 100


def tried(comm, folder, batch_size=4, more=""):
    if comm.rank == 0:
        x = np.random.default_rng(0).standard_normal((N, 3))
        np.savez(folder / "rows.npz", X=x, y=(x[:, 0] > 0) * 1)
    comm.Barrier()
    text = TEXT.format(batch_size=batch_size, more=more)
    return try_out(configuration.parse(text, folder=folder), comm)


CASES = {
    "plain": (4, "", 20),
    "one step": (80, "", 1),
    "full batches": (4, '[optimizer]\nname = "lbfgs"', 1),
    "local": (4, '[parallel]\nstrategy = "local"', 20),
    "a server": (4, '[parallel]\nstrategy = "server"\nservers = 1', 20),
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("case", CASES)
def test_what_a_training_takes(comm, mpi_tmp_path, case):
    batch_size, more, n_steps = CASES[case]
    found = tried(comm, mpi_tmp_path, batch_size, more)
    assert comm.allgather(found) == [found] * comm.size
    assert (found["ranks"], found["samples"], found["features"]) == (comm.size, 80, 3)
    assert (found["parameters"], found["steps_per_epoch"]) == (8, n_steps)
    assert 0 < found["step_s"] < 60
    assert found["training_s"] == pytest.approx(7 * n_steps * found["step_s"])
    assert found["memory_bytes"] > 2**20
    assert [path.name for path in mpi_tmp_path.iterdir()] == ["rows.npz"]


@pytest.mark.mpi(min_size=2)
def test_it_ends_when_enough_steps_are_timed(comm, mpi_tmp_path, monkeypatch):
    monkeypatch.setattr(tryout, "MOST_STEPS", 2)
    steps, step = [], tryout._Clock.step

    def counted(clock, epoch, done, total):
        steps.append(done)
        step(clock, epoch, done, total)

    monkeypatch.setattr(tryout._Clock, "step", counted)
    assert tried(comm, mpi_tmp_path, batch_size=1)["steps_per_epoch"] == 80
    assert tryout.WARM_STEPS + 2 <= steps[-1] < 10


@pytest.mark.mpi(min_size=2)
def test_errors_are_those_of_a_training(comm, mpi_tmp_path):
    config = configuration.parse(
        TEXT.format(batch_size=4, more=""), folder=mpi_tmp_path
    )
    with pytest.raises(DataError, match="rows.npz: no such file"):
        try_out(config, comm)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.0031, "3.1 ms"),
        (12.43, "12.4 s"),
        (312, "5.2 min"),
        (12240, "3.4 h"),
        (3.6e7, "1e+04 h"),
    ],
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text


def test_lines():
    found = {"steps_per_epoch": 1, "step_s": 0.5, "training_s": 5.0}
    found["memory_bytes"] = 2**28
    first, second, _ = describe_try(found, 10)
    assert first.startswith("time     1 step an epoch, 500 ms a step: 500 ms an epoch")
    assert second == "memory   256 MiB a rank at most"
