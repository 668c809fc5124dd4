"""A training that was interrupted and resumed is one that was not."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from small_runs import ADAM, LBFGS, make_rows, records, train_small

from pympi_train.checkpoint import store
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.checkpoint.write import Writing
from pympi_train.errors import ConfigError, DataError
from pympi_train.optim import lbfgs, line_search
from pympi_train.runs import output, prepare
from pympi_train.runs.recovery import checkpoints

N_STEPS = 4 * 5  # of 64 training rows
CASES = {
    "allreduce": [],
    "sharded": ["parallel.strategy=sharded"],
    "hierarchical": ["parallel.strategy=hierarchical"],
    "server": ["parallel.strategy=server"],
    "local": ["parallel.strategy=local", "parallel.local_steps=2"],
    "exact": ["parallel.reduction=exact"],
    "int8": ["parallel.compression=int8"],
    "lbfgs": [*LBFGS, "model.l2=0.01", "train.epochs=9"],
    "patience": ["train.patience=2", "optimizer.learning_rate=0.3"],
    "windows": ["data.order=window"],
    "target": ["train.target=1.3", "train.gradient_noise=true"],
    "streamed": ["data.train=rows.parquet", "data.memory=stream", "data.order=window"],
}


def train(folder, comm, *overrides, **how):
    return train_small(folder, comm, *ADAM, *overrides, **how)


@pytest.fixture
def interrupt(monkeypatch):
    """Send a signal to a rank after some steps of its job."""

    def after(rank, n_steps, number=signal.SIGTERM):
        on_step, left = checkpoints.Checkpoints.on_step, [n_steps]

        def counting(self):
            left[0] -= 1
            if left[0] == 0 and self._comm.rank == rank:
                os.kill(os.getpid(), number)
            on_step(self)

        monkeypatch.setattr(checkpoints.Checkpoints, "on_step", counting)

    return after


def same_to_rounding(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same_to_rounding(one[key], other[key]) for key in one
        )
    return one == other or one == pytest.approx(other, rel=1e-12)


def write_parquet(folder):
    x, kinds = make_rows()
    table = pa.table({**{f"x{j}": x[:, j] for j in range(x.shape[1])}, "y": kinds})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=16)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_is_undisturbed(comm, folder, interrupt, case):
    how = CASES[case]
    if case == "streamed" and comm.rank == 0:
        write_parquet(folder)
    comm.Barrier()
    want = train(folder, comm, *how, name="whole")
    rank = 0 if case == "server" else 1
    interrupt(rank, 3 if case == "lbfgs" else 8)
    first = train(folder, comm, *how)
    assert first["interrupted"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    comm.Barrier()
    assert not (folder / "run" / output.WEIGHTS).exists()
    found = train(folder, comm, *how, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]
    for key in ("epochs", "steps", "samples_seen", "kept_epoch", "ended"):
        assert found[key] == want[key]
    pairs = list(zip(records(folder), records(folder, "whole"), strict=True))
    assert len(pairs) == want["epochs"]
    assert all(same_to_rounding(*pair) for pair in pairs)


@pytest.mark.mpi(min_size=2)
def test_signal_within_a_line_search(comm, folder, monkeypatch):
    how = [*LBFGS, "model.l2=0.01", "train.epochs=9"]
    want = train(folder, comm, *how, name="whole")
    asked = []

    def driven(course, answer):
        def signalled(point):
            asked.append(point)
            if len(asked) == 6 and comm.rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            return answer(point)

        return line_search.driven(course, signalled)

    monkeypatch.setattr(lbfgs, "driven", driven)
    first = train(folder, comm, *how)
    assert first["interrupted"] == "SIGUSR1" and 2 <= first["step"] <= 6
    found = train(folder, comm, *how, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]
    assert found["epochs"] == want["epochs"] > first["step"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "case", ["sharded", "server", "patience", "decrease", "target"]
)
def test_ranks_that_died_before_the_result(comm, folder, case):
    """The last checkpoint is there, and what is written after it is not."""
    how = CASES.get(case, [*LBFGS, "train.epochs=999", "optimizer.tolerance=0"])
    want = train(folder, comm, *how)
    assert case != "decrease" or want["ended"] in ("decrease", "line search")
    before = records(folder)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "run" / output.RESULT).unlink()
        (folder / "run" / output.WEIGHTS).unlink()
    comm.Barrier()
    found = train(folder, comm, *how, resume="newest")
    timed = {"wall_s", "samples_per_s", "startup_seconds"}
    assert {k: found[k] for k in want if k not in timed} == {
        k: want[k] for k in want if k not in timed
    }
    assert records(folder) == before
    assert (folder / "run" / output.WEIGHTS).exists()
    if case == "target":
        require_target(comm, folder, how, found, want)
    if case == "sharded":  # more epochs: it goes on
        comm.Barrier()
        found = train(folder, comm, *how, "train.epochs=5", resume="newest")
        assert found["epochs"] == 5


def require_target(comm, folder, how, result, want):
    """A higher target goes on where a lower one was reached; a result is kept."""
    reached, last = result["reached"], records(folder)[-1]
    assert result["ended"] == "target" and result["epochs"] < 4
    assert reached == want["reached"]
    assert reached["value"] == last["validation_loss"] <= reached["target"] == 1.3
    assert reached["steps"] == result["steps"] == last["step"]
    assert 0 < reached["seconds"] < result["wall_s"]
    assert result["gradient_noise"] == last["gradient_noise"]
    for target, epochs in ((1.3, result["epochs"]), (0.1, 4)):
        comm.Barrier()
        again = train(folder, comm, *how, f"train.target={target}", resume="newest")
        assert again["epochs"] == epochs
    assert again["ended"] == "epochs" and again["reached"] is None


@pytest.mark.mpi(min_size=2)
def test_checkpoint_that_is_being_written_when_all_ranks_fail(
    comm, folder, monkeypatch
):
    """It is completed: its messages must not be taken for those of another one."""

    def full_disk(self, record):
        raise DataError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(output.RunDirectory, "add_record", full_disk)
        with pytest.raises(DataError, match="disk full"):
            train(folder, comm, f"checkpoint.every_steps={N_STEPS // 4 - 1}")
    comm.Barrier()
    found = store.entries(folder / "run" / "checkpoints")
    assert [entry.step for entry in found] == [N_STEPS // 4 - 1]
    assert len(os.listdir(folder / "run" / "checkpoints")) == 1
    assert store.newest(folder / "run" / "checkpoints", comm)[0] is not None


@pytest.mark.mpi(min_size=2)
def test_fewer_epochs_than_were_done(comm, folder, interrupt):
    interrupt(1, 13)  # in the third epoch
    assert train(folder, comm)["interrupted"] == "SIGTERM"
    comm.Barrier()
    with pytest.raises(ConfigError, match="epochs is 2, but 2 epochs were done when"):
        train(folder, comm, "train.epochs=2", resume="newest")
    assert train(folder, comm, "train.epochs=3", resume="newest")["epochs"] == 3


@pytest.mark.mpi(min_size=2)
def test_language_model(comm, folder, interrupt):
    if comm.rank == 0:
        tokens = np.arange(1500) ** 2 % 11
        tokens.astype(np.uint16).tofile(folder / "text.bin")
    comm.Barrier()
    how = ["data.train=text.bin", "data.window=15", "data.standardize=false"]
    how += ["model.kind=neural-ngram", "model.context=2", "model.embedding=4"]
    want = train(folder, comm, *how, name="whole")
    interrupt(1, 8)
    assert train(folder, comm, *how)["interrupted"] == "SIGTERM"
    comm.Barrier()
    found = train(folder, comm, *how, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=2)
def test_signal_while_data_are_loaded(comm, folder, monkeypatch):
    want, load = train(folder, comm, name="whole"), prepare.load

    def slow_load(*args, **options):
        if comm.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return load(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "load", slow_load)
        first = train(folder, comm)
    assert (first["interrupted"], first["step"]) == ("SIGUSR1", 1)
    found = train(folder, comm, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=3)
def test_server_that_gets_the_signal(comm, folder, interrupt, monkeypatch):
    how = [*CASES["server"], "train.epochs=4000"]
    serve, kill = prepare.Trainer.fit, signal.SIGUSR1

    def fit(self, *args, **kwargs):
        if self.serves:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        return serve(self, *args, **kwargs)

    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), kill))
    monkeypatch.setattr(prepare.Trainer, "fit", fit)
    try:
        done = train(folder, comm, *how)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert done["interrupted"] == "SIGUSR1"


@pytest.mark.mpi(min_size=3)
def test_exact_bits_on_other_numbers_of_ranks(comm, folder, interrupt):
    from mpi4py import MPI

    how = CASES["exact"]
    want = train(folder, comm, *how, name="whole")
    interrupt(2, 8)
    train(folder, comm, *how)
    comm.Barrier()
    if comm.rank == 0:
        found = train(folder, MPI.COMM_SELF, *how, resume="newest")
        assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=3)
def test_other_number_of_ranks_differs_by_rounding(comm, folder, interrupt):
    from mpi4py import MPI

    want = train(folder, comm, name="whole")
    interrupt(2, 8)
    train(folder, comm)
    comm.Barrier()
    if comm.rank == 0:
        found = train(folder, MPI.COMM_SELF, resume="newest")
        assert found["train_loss"] == pytest.approx(want["train_loss"], rel=1e-4)
        assert found["samples_seen"] == want["samples_seen"]


@pytest.mark.mpi(min_size=2)
def test_checkpoints_by_steps(comm, folder):
    how = ["checkpoint.every_steps=6", "checkpoint.keep=100"]
    want = train(folder, comm, name="whole")
    found = train(folder, comm, *how)
    assert found["weights_sha256"] == want["weights_sha256"]
    assert records(folder) == records(folder, "whole")
    steps = [entry.step for entry in store.entries(folder / "run" / "checkpoints")]
    assert steps == [6, 12, 18, N_STEPS]
    # From each of them, as if the run had been killed some steps later.
    for entry in store.entries(folder / "run" / "checkpoints")[:-1]:
        again = train(folder, comm, resume=entry.path, name="again")
        assert again["weights_sha256"] == want["weights_sha256"]
        assert records(folder, "again") == records(folder, "whole")


@pytest.mark.mpi(min_size=2)
def test_checkpoints_by_time(comm, folder):
    how = ["checkpoint.every_s=1e-6", "checkpoint.keep=3"]
    want = train(folder, comm, name="whole")
    found = train(folder, comm, *how)
    assert found["weights_sha256"] == want["weights_sha256"]
    last = store.entries(folder / "run" / "checkpoints")
    assert len(last) in (3, 4) and last[-1].number > 10  # and the best epoch's


@pytest.mark.mpi(min_size=2)
def test_checkpoint_that_cannot_be_removed(comm, folder, monkeypatch):
    """The new ones count as written all the same."""

    def hide(path):
        raise DataError(f"{path}: cannot be removed: Read-only file system")

    def say(self, text):
        said.append(text)

    said = []
    monkeypatch.setattr(store, "hide", hide)
    monkeypatch.setattr(checkpoints.Checkpoints, "_say", say)
    how = ["checkpoint.every_steps=6", "checkpoint.keep=1", "checkpoint.on_error=stop"]
    train(folder, comm, *how)
    steps = [entry.step for entry in store.entries(folder / "run" / "checkpoints")]
    assert steps == [6, 12, 18, N_STEPS]
    words = "warning  an older checkpoint stays: .*: cannot be removed: Read-only"
    assert sum(re.match(words, text) is not None for text in said) == (
        3 if comm.rank == 0 else 0
    )


@pytest.mark.mpi(min_size=2)
def test_end_of_the_job(comm, folder, monkeypatch):
    found = train(folder, comm, "checkpoint.max_time=1.0")  # since the tests began
    assert found["interrupted"] == "the time of the job is nearly over"
    assert found["step"] < N_STEPS
    assert train(folder, comm, resume="newest")["steps"] == N_STEPS


@pytest.mark.mpi(min_size=2)
def test_finished_run_stays_as_it_is(comm, folder):
    want = train(folder, comm)
    before = {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}
    comm.Barrier()
    found = train(folder, comm, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]
    assert before == {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}
    more = train(folder, comm, "train.epochs=6", resume="newest")
    assert (more["epochs"], more["steps"]) == (6, N_STEPS * 6 // 4)


@pytest.mark.mpi(min_size=2)
def test_damaged_checkpoint_is_passed_over(comm, folder):
    how = ["checkpoint.every_steps=6", "checkpoint.keep=9"]
    want = train(folder, comm, *how)
    if comm.rank == 0:
        (folder / "run" / output.RESULT).unlink()
        for entry in store.entries(folder / "run" / "checkpoints")[1:]:
            file = Path(entry.path) / "rank-000000.safetensors"
            os.truncate(file, 1000)
    comm.Barrier()
    found = train(folder, comm, *how, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]
    assert [r["epoch"] for r in records(folder)] == [1, 2, 3, 4]
    if comm.rank == 0:
        (folder / "run" / output.RESULT).unlink()
        for entry in store.entries(folder / "run" / "checkpoints"):
            (Path(entry.path) / "manifest.json").write_text("{}")
    comm.Barrier()
    found = train(folder, comm, *how, resume="newest")  # afresh
    assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "overrides, words",
    [
        (["model.hidden=[7]"], r"\[model\] hidden is \[7\], but was \[6\] when"),
        (["train.seed=1"], r"\[train\] seed is 1, but was 0 when"),
        (["data.validation=0.3"], "the training rows are not those of .*: 80, now 70"),
        (["data.standardize=false"], "the features, labels or scaling are not those"),
        (["parallel.strategy=server", "optimizer.name=sgd"], "name is 'sgd', but was"),
        (["data.order=window"], r"\[data\] order is 'window', but was 'full' when"),
        (["data.fold=1"], r"\[data\] fold is 1, but was None when"),
    ],
)
def test_another_training_is_refused(comm, folder, overrides, words):
    train(folder, comm, "train.epochs=1")
    with pytest.raises(ConfigError, match=words):
        train(folder, comm, *overrides, resume="newest")
    assert not (folder / "run" / output.PREVIOUS).exists()


@pytest.mark.mpi(min_size=2)
def test_checkpoint_that_is_named_must_be_there(comm, folder):
    with pytest.raises(DataError, match="none: no such checkpoint"):
        train(folder, comm, resume=str(folder / "none"))
    train(folder, comm, "train.epochs=1")
    for named in (folder / "run", folder / "run" / "checkpoints"):
        with pytest.raises(DataError, match="name one, such as .*/000001-step-5; --"):
            train(folder, comm, resume=str(named))


@pytest.mark.mpi(min_size=2)
def test_other_labels_are_refused(comm, folder):
    """Neither the features nor the number of rows tell them apart."""
    train(folder, comm, "train.epochs=1")
    if comm.rank == 0:
        with np.load(folder / "rows.npz") as rows:
            changed = np.where(np.arange(100) % 10, rows["y"], 0)
            np.savez(folder / "rows.npz", x=rows["x"], y=changed)
    comm.Barrier()
    with pytest.raises(ConfigError, match="numbers of training rows of each class are"):
        train(folder, comm, resume="newest")


@pytest.mark.mpi(min_size=2)
def test_lower_tolerance_goes_on(comm, folder):
    how = [*LBFGS, "model.l2=0.01", "train.epochs=99"]
    first = train(folder, comm, *how, "optimizer.tolerance=0.1")
    want = train(folder, comm, *how, "optimizer.tolerance=1e-4", name="whole")
    assert first["ended"] == want["ended"] == "gradient"
    same = train(folder, comm, *how, "optimizer.tolerance=0.2", resume="newest")
    assert same["epochs"] == first["epochs"] < want["epochs"]
    more = train(folder, comm, *how, "optimizer.tolerance=1e-4", resume="newest")
    assert more["weights_sha256"] == want["weights_sha256"]
    assert records(folder) == records(folder, "whole")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("on_error", ["warn", "stop"])
def test_checkpoint_that_cannot_be_written(comm, folder, on_error):
    if comm.rank == 0:
        (folder / "taken").write_text("a file")
    comm.Barrier()
    how = ["checkpoint.every_steps=6", f"checkpoint.on_error={on_error}"]
    how.append("checkpoint.directory=taken/in")
    if on_error == "stop":
        with pytest.raises(DataError, match="taken"):
            train(folder, comm, *how)
    else:
        assert train(folder, comm, *how)["steps"] == N_STEPS


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("room_bytes", [0, 2**40])
def test_with_and_without_room_for_a_copy(comm, folder, monkeypatch, room_bytes):
    how = ["checkpoint.every_steps=3", "checkpoint.keep=9"]
    want = train(folder, comm, name="whole")
    bytes_ = room_bytes if comm.rank == 0 else 2**40  # rank 0 writes the small model
    monkeypatch.setattr(checkpoints, "available_bytes", lambda: bytes_)
    started = []
    start = Writing.start
    monkeypatch.setattr(Writing, "start", lambda self: (started.append(1), start(self)))
    assert train(folder, comm, *how)["weights_sha256"] == want["weights_sha256"]
    assert len(started) == (6 if room_bytes else 0)
    entries = store.entries(folder / "run" / "checkpoints")
    assert [entry.step for entry in entries] == [3, 6, 9, 12, 15, 18, N_STEPS]
    found = [read_checkpoint(entry.path, comm) for entry in entries]
    assert [f.state.values["progress"]["steps"] for f in found][:2] == [3, 6]
    again = train(folder, comm, resume=entries[1].path, name="again")
    assert again["weights_sha256"] == want["weights_sha256"]
