"""Training that fails: every rank learns of it, and what was good is kept.

Nothing is timed: a job that did not end by itself is ended by the harness, which
raises.
"""

import json
import math
import re
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import load_file

import pympi_train as pt
from pympi_train.config import config as configuration
from pympi_train.errors import DataError, DivergenceError, RemoteRankError
from pympi_train.runs import job, output
from pympi_train.runs.inference import Run

N_ROWS = 24


class Stumbles(pt.Linear):
    """Linear regression that raises on one rank, at one call on rows."""

    def __init__(self, comm, rank, call, where, error):
        super().__init__(2, dtype="float64")
        self._is_here = comm.rank == rank
        self._call, self._where, self._error = call, where, error
        self._calls = 0

    def loss(self, params, batch):
        self._calls += len(batch.x) > 0  # compiling sends a batch without rows
        self._stumble("loss")
        return super().loss(params, batch)

    def predict(self, params, x):
        self._stumble("predict")
        return super().predict(params, x)

    def _stumble(self, where):
        if self._is_here and self._where == where and self._calls >= self._call:
            raise self._error


def dataset(comm, n=N_ROWS):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, 2))
    return pt.Dataset.split(x, x @ [[1.0], [-2.0]], comm=comm)


def stumble(comm, rank, call, *, where="loss", error, validation=False):
    """What training raises on this rank, the trainer, and its weights a step ago."""
    data = dataset(comm)
    model = Stumbles(comm, rank, call, where, error)
    with pt.Trainer(model, pt.SGD(lr=0.05), batch_size=8, comm=comm) as trainer:
        before = []

        def on_step(*_):
            before[:] = [trainer.params.copy()]

        try:
            trainer.fit(
                data, data if validation else None, epochs=3, on_step=on_step
            )
        except Exception as caught:
            return caught, trainer, before
    return None, trainer, before


@pytest.mark.mpi(min_size=2)
def test_error_in_loss_travels(comm):
    rank, own = comm.size - 1, ZeroDivisionError("third step")
    error, trainer, before = stumble(comm, rank, 3, error=own)
    if comm.rank == rank:
        assert error is own
    else:
        assert type(error) is RemoteRankError
        assert error.rank == rank
        assert "ZeroDivisionError: third step" in error.traceback
        assert "_stumble" in error.traceback
    assert trainer.steps == 2
    np.testing.assert_array_equal(trainer.params, before[0])
    assert len(set(comm.allgather(trainer.params.tobytes()))) == 1


@pytest.mark.mpi(min_size=2)
def test_user_s_error_in_loss_is_the_same_everywhere(comm):
    error, _, _ = stumble(comm, 1, 2, error=DataError("row 7 makes no sense"))
    assert (type(error), str(error)) == (DataError, "row 7 makes no sense")


@pytest.mark.mpi(min_size=2)
def test_error_in_evaluation_travels(comm):
    own = ZeroDivisionError("no prediction")
    error, trainer, _ = stumble(
        comm, 1, 0, where="predict", error=own, validation=True
    )
    assert error is own if comm.rank == 1 else error.rank == 1
    assert trainer.steps == 3  # the first epoch was done


@pytest.mark.mpi(min_size=2)
def test_error_of_a_rank_without_rows_travels(comm):
    """The last rank has no row of any batch, and fails all the same."""
    rank = comm.size - 1
    x = np.ones((0 if comm.rank == rank else 3, 2))
    data = pt.Dataset(x, x[:, :1], comm=comm)

    def loss_and_grad(params, batch, grads):
        if comm.rank == rank and len(calls) > 2:
            raise KeyError("nothing here")
        calls.append(len(batch.x))
        return 0.0

    calls = []
    model = pt.FunctionModel([pt.Tensor("w", (2,))], loss_and_grad)
    with pt.Trainer(model, pt.SGD(lr=0.1), batch_size=2, comm=comm) as trainer:
        with pytest.raises((KeyError, RemoteRankError)) as info:
            trainer.fit(data, epochs=5)
    assert isinstance(info.value, KeyError) == (comm.rank == rank)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_of_one_rank_that_is_not_finite(comm, value):
    """The parameters are those before the step, on every rank."""
    calls = []

    def loss_and_grad(params, batch, grads):
        calls.append(len(batch.x))
        grads["w"][...] = len(batch.x)
        ill = comm.rank == 1 and sum(n > 0 for n in calls) == 3
        return value if ill else 0.0

    model = pt.FunctionModel([pt.Tensor("w", (2,))], loss_and_grad, dtype="float64")
    with pt.Trainer(model, pt.SGD(lr=0.25), batch_size=8, comm=comm) as trainer:
        with pytest.raises(DivergenceError, match="loss became .* at step 3"):
            trainer.fit(dataset(comm), epochs=3)
        assert trainer.steps == 2
        # The mean gradient is 1 where no row is counted twice.
        np.testing.assert_array_equal(trainer.weights()["w"], [-0.5, -0.5])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_gradient_of_one_rank_that_is_not_finite(comm, clip_norm):
    calls = []

    def loss_and_grad(params, batch, grads):
        calls.append(len(batch.x))
        ill = comm.rank == 1 and sum(n > 0 for n in calls) == 2
        grads["w"][...] = math.nan if ill else len(batch.x)
        return 0.0

    model = pt.FunctionModel([pt.Tensor("w", (1,))], loss_and_grad, dtype="float64")
    with pt.Trainer(
        model, pt.Adam(lr=0.25), batch_size=8, comm=comm, clip_norm=clip_norm
    ) as trainer:
        with pytest.raises(DivergenceError, match="gradient .* at step 2"):
            trainer.fit(dataset(comm), epochs=3)
        assert trainer.steps == 1
        np.testing.assert_allclose(trainer.params[0], -0.25, rtol=1e-7)


def diverge(folder, comm, *overrides):
    """Train with a learning rate that no regression survives."""
    path = folder / "data.csv"
    if comm.rank == 0:
        x = np.random.default_rng(5).standard_normal((N_ROWS, 3))
        lines = [",".join(map(repr, row)) for row in x.tolist()]
        path.write_text("\n".join(["a,b,y", *lines]))
    comm.Barrier()
    text = """
    [data]
    train = "data.csv"
    [model]
    kind = "linear"
    [optimizer]
    name = "sgd"
    learning_rate = 1e30
    [train]
    epochs = 30
    batch_size = 12
    [output]
    directory = "run"
    """
    config = configuration.parse(text, folder=folder, overrides=overrides)
    with pytest.raises(DivergenceError) as info:
        job.train(config, comm)
    comm.Barrier()
    return str(info.value)


def check_last_good_weights(folder, message, n_epochs=0):
    run = folder / "run"
    tensors = load_file(run / output.WEIGHTS)
    assert sum(tensor.size for tensor in tensors.values()) == 3
    for tensor in tensors.values():
        assert np.isfinite(tensor).all()
    assert re.match("the (loss|gradient|step) became .* at step", message)
    assert f"{run}/{output.WEIGHTS}" in message
    assert "learning_rate" in message
    lines = (run / output.METRICS).read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines]
    assert epochs == list(range(1, n_epochs + 1))
    assert not (run / output.RESULT).exists()


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


def test_divergence_keeps_the_last_good_weights(tmp_path, alone):
    message = diverge(tmp_path, alone)
    check_last_good_weights(tmp_path, message)
    assert "the step became too large for float32 at step 1" in message
    assert "the weights of step 0 are in" in message


def test_divergence_leaves_the_weights_of_an_earlier_run(tmp_path, alone):
    for _ in range(3):
        diverge(tmp_path, alone)
        if not (tmp_path / "run" / output.PREVIOUS).exists():  # as if it had finished
            before = (tmp_path / "run" / output.WEIGHTS).read_bytes() + b"mine"
            (tmp_path / "run" / output.WEIGHTS).write_bytes(before)
            (tmp_path / "run" / output.RESULT).write_text("{}")
    kept = tmp_path / "run" / output.PREVIOUS
    assert (kept / output.WEIGHTS).read_bytes() == before
    assert (kept / output.RESULT).exists()


def test_metrics_so_far_are_kept(tmp_path, alone):
    # Each step makes the weights some hundred times as large: a few epochs go well.
    message = diverge(tmp_path, alone, "optimizer.learning_rate=1e3")
    lines = (tmp_path / "run" / output.METRICS).read_text().splitlines()
    assert 1 <= len(lines) < 30
    check_last_good_weights(tmp_path, message, n_epochs=len(lines))
    losses = [json.loads(line)["train_loss"] for line in lines]
    assert losses == sorted(losses)


def test_diverged_run_can_be_evaluated(tmp_path, alone):
    diverge(tmp_path, alone, "optimizer.learning_rate=1e5", "train.seed=1")
    with np.errstate(all="ignore"):
        found = Run(tmp_path / "run", alone).evaluate(tmp_path / "data.csv")
    assert found["samples"] == N_ROWS


@pytest.mark.mpi(min_size=2)
def test_divergence_on_all_ranks(mpi_tmp_path, comm):
    message = diverge(mpi_tmp_path, comm)
    check_last_good_weights(mpi_tmp_path, message)
    assert comm.allgather(message) == [message] * comm.size


@pytest.mark.mpi(min_size=2)
def test_disk_that_is_full_is_told_on_all_ranks(mpi_tmp_path, comm, monkeypatch):
    def refuse(self, record):
        raise DataError("metrics.jsonl: cannot be written: No space left on device")

    monkeypatch.setattr(output.RunDirectory, "add_record", refuse)
    path = mpi_tmp_path / "data.csv"
    if comm.rank == 0:
        path.write_text("a,y\n" + "".join(f"{i},{2 * i}\n" for i in range(9)))
    comm.Barrier()
    text = '[data]\ntrain = "data.csv"\n[model]\nkind = "linear"\n'
    config = configuration.parse(text, folder=mpi_tmp_path)
    with pytest.raises(DataError, match="No space left"):
        job.train(config, comm)


BEGIN = """
import sys
import numpy as np
import pympi_train as pt
from pympi_train.comm.mesh import world

comm = world()

class Model(pt.Linear):
    calls = 0

    def fail(self, where):
        if comm.rank == 1 and where == WHERE and self.calls >= 3:
            raise ValueError("lost my way")

    def loss(self, params, batch):
        self.calls += len(batch.x) > 0
        self.fail("loss")
        return super().loss(params, batch)

    def gradient(self, params, grads):
        self.fail("gradient")
        super().gradient(params, grads)

def on_step(*_):
    model.fail("on_step")

def on_epoch(record):
    model.fail("on_epoch")

x = np.random.default_rng(0).standard_normal((24, 2))
data = pt.Dataset.split(x, x[:, :1])
model = Model(2, dtype="float64")
"""
TRAIN = """
with pt.Trainer(model, pt.Adam(), batch_size=8) as trainer:
    trainer.fit(data, epochs=5, on_step=on_step, on_epoch=on_epoch)
    print("all well", flush=True)
"""


def script(tmp_path, where, code=TRAIN):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(f"WHERE = {where!r}\n{BEGIN}{code}"))
    return [sys.executable, str(path)]


@pytest.mark.parametrize("where", ["loss", "gradient", "on_step", "on_epoch"])
def test_error_that_travelled_is_told_once_by_rank_0(mpirun, tmp_path, where):
    done = mpirun(3, script(tmp_path, where))
    assert done.returncode != 0
    assert "all well" not in done.stdout
    assert "ending the job" not in done.stderr
    assert done.stderr.count("RemoteRankError: rank 1: ValueError: lost my way") == 1
    assert "in fail" in done.stderr


def test_every_rank_may_catch_an_error_that_travelled(mpirun, tmp_path):
    code = """
from pympi_train.errors import RemoteRankError

trainer = pt.Trainer(model, pt.Adam(), batch_size=8)
try:
    trainer.fit(data, epochs=5)
except RemoteRankError as error:
    print(f"caught {error.rank} on {comm.rank}", flush=True)
except ValueError:
    print("caught its own", flush=True)
trainer.free()
comm.Barrier()
"""
    done = mpirun(3, script(tmp_path, "gradient", code))
    assert done.returncode == 0, done.stderr
    for words in ("caught 1 on 0", "caught 1 on 2", "caught its own"):
        assert done.stdout.count(words) == 1


def test_error_that_cannot_travel_ends_the_job_even_if_it_would_be_caught(
    mpirun, tmp_path
):
    """In an update: the other ranks have moved their parameters."""
    code = """
class Optimizer(pt.Adam):
    def update(self, *args, **kwargs):
        model.fail("update")  # not in the rehearsal, nor in the first two steps
        return super().update(*args, **kwargs)

trainer = pt.Trainer(model, Optimizer(), batch_size=8)
try:
    trainer.fit(data, epochs=1)
except Exception:
    pass
comm.Barrier()
print("all well", flush=True)
"""
    done = mpirun(3, script(tmp_path, "update", code))
    assert done.returncode != 0
    assert "all well" not in done.stdout
    assert "rank 1 of 3 failed: ending the job" in done.stderr
    assert done.stderr.count("ValueError: lost my way") == 1


def test_job_that_diverges(mpirun, tmp_path):
    (tmp_path / "data.csv").write_text(
        "a,y\n" + "".join(f"{i},{i * i}\n" for i in range(1, 13))
    )
    (tmp_path / "c.toml").write_text(
        '[data]\ntrain = "data.csv"\n[model]\nkind = "linear"\n[optimizer]\n'
        'name = "sgd"\nlearning_rate = 1e30\n[train]\nbatch_size = 4\n'
        '[output]\ndirectory = "run"\n'
    )
    argv = [sys.executable, "-m", "pympi_train", "train", "c.toml", "--json"]
    done = mpirun(3, argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("pympi-train: ") == 1
    assert "at step" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    for tensor in load_file(tmp_path / "run" / output.WEIGHTS).values():
        assert np.isfinite(tensor).all()
