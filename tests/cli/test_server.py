"""A configuration with servers: one result, one message, whatever a rank's part is."""

import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVER = ["train.backend=numpy", "parallel.strategy=server"]
STALE = [*SERVER, "parallel.staleness=2"]


def last_line(done):
    return json.loads(done.out.splitlines()[-1])


@pytest.fixture
def train(pympi_train):
    def run(*overrides):
        return pympi_train("train", "c.toml", "--json", "--set", *overrides)

    return run


@pytest.mark.mpi(min_size=2)
class TestRanks:
    def test_equals_training_without(self, shared_folder, comm, train):
        from mpi4py import MPI

        done = train(*SERVER, "model.dtype=float64")
        assert done.status == 0, done.err
        assert bool(done.out) is (comm.rank == 0)
        comm.Barrier()
        if comm.rank:
            return
        result = last_line(done)
        assert result["ranks"] == comm.size
        written = json.loads(Path("run", "result.json").read_text())
        assert written["weights_sha256"] == result["weights_sha256"]
        # The same steps on rank 0 alone.
        from pympi_train.config import config
        from pympi_train.runs import job

        overrides = [SERVER[0], "output.directory=alone", "model.dtype=float64"]
        text = Path("c.toml").read_text()
        parsed = config.parse(text, where="c", folder=Path(), overrides=overrides)
        want = job.train(parsed, MPI.COMM_SELF)
        for key in ("epochs", "steps", "samples_seen", "kept_epoch", "parameters"):
            assert result[key] == want[key]
        for key in ("loss", "accuracy"):
            assert result["validation"][key] == pytest.approx(want["validation"][key])

    @pytest.mark.parametrize("overrides", [SERVER, STALE])
    def test_early_stopping(self, shared_folder, comm, train, overrides):
        fast = ["train.patience=1", "train.epochs=99", "optimizer.learning_rate=0.5"]
        done = train(*overrides, *fast)
        assert done.status == 0, done.err
        if comm.rank == 0:
            result = last_line(done)
            assert result["ended"] == "patience"
            assert result["kept_epoch"] < result["epochs"]

    @pytest.mark.parametrize(
        "overrides, words",
        [
            ([*SERVER, "data.train=absent.csv"], "absent.csv: no such file"),
            ([*SERVER, "data.train=nan.csv"], "nan.csv, line 7, column 'b'"),
            ([*SERVER, "parallel.servers=9"], "start 10 ranks or more"),
            ([*STALE, "output.directory=taken"], "taken"),
        ],
    )
    def test_refusals(self, shared_folder, comm, pympi_train, overrides, words):
        done = pympi_train("train", "c.toml", "--set", *overrides)
        assert done.status == 2
        if comm.rank == 0:
            assert words in done.err.splitlines()[-1]
        else:
            assert done.err == ""

    @pytest.mark.parametrize("overrides", [SERVER, STALE])
    def test_divergence(self, shared_folder, comm, pympi_train, overrides):
        argv = [*overrides, "optimizer.name=sgd", "optimizer.learning_rate=1e39"]
        done = pympi_train("train", "c.toml", "--set", *argv)
        assert done.status == 2
        comm.Barrier()
        if comm.rank == 0:
            line = done.err.splitlines()[-1]
            assert "too large for float32 at step 1" in line
            assert "(the weights of step 0 are in " in line
            assert Path("run", "weights.safetensors").exists()
        else:
            assert done.err == ""

    def test_record_that_cannot_be_written(
        self, shared_folder, comm, pympi_train, monkeypatch
    ):
        from pympi_train.errors import DataError
        from pympi_train.runs import output

        def refuse(self, record):
            raise DataError("no space left")

        monkeypatch.setattr(output.RunDirectory, "add_record", refuse)
        done = pympi_train("train", "c.toml", "--set", *STALE)
        assert done.status == 2
        assert ("no space left" in done.err) is (comm.rank == 0)


def test_digits(mpirun, tmp_path):
    """Two workers and a server: the accuracy of other strategies."""
    more = [*SERVER, f"output.directory={tmp_path}/run", "train.epochs=15"]
    argv = ["train", str(EXAMPLES / "digits.toml"), "--json", "--set", *more]
    done = mpirun(3, [sys.executable, "-m", "pympi_train", *argv])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["validation"]["accuracy"] > 0.96
    assert result["ranks"] == 3
    assert "2 and 1 server" in done.stderr


SCRIPT = """
import numpy as np
import pympi_train as pt

parallel = pt.Parallel(strategy="server", staleness={staleness})
model = pt.Linear(2, dtype="float64")
trainer = pt.Trainer(model, pt.SGD(0.1), batch_size=2, parallel=parallel)

def on_step(epoch, done, total):
    if trainer.comm.rank == 1 and done == 2:
        raise ZeroDivisionError("alone")

data = None
if not trainer.serves:
    data = pt.Dataset.split(np.ones((20, 2)), np.ones((20, 1)), comm=trainer.comm)
trainer.fit(data, epochs=3, on_step=on_step)
print("went on")
"""


@pytest.mark.parametrize("staleness", [0, 1])
def test_error_of_one_worker_between_steps_ends_the_job(mpirun, tmp_path, staleness):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(staleness=staleness))
    done = mpirun(3, [sys.executable, str(path)], timeout=60)
    assert done.returncode != 0
    assert "ZeroDivisionError: alone" in done.stderr
    assert "went on" not in done.stdout
