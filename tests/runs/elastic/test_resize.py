"""A training whose ranks join and leave is one whose ranks stay."""

import os
import signal
import time

import pytest
from small_runs import ADAM, LBFGS, make_rows, records, train_small

from pympi_train.checkpoint import store, write
from pympi_train.comm.checks import together
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs import job, prepare
from pympi_train.runs.elastic import requests
from pympi_train.runs.recovery import checkpoints

EXACT = ["parallel.reduction=exact"]
PATIENCE = ["train.patience=2", "optimizer.learning_rate=0.3", "train.epochs=9"]
SPARSE = ["data.train=rows.svm", "model.kind=softmax"]
CASES = {
    "exact": EXACT,
    "exact-patience": [*EXACT, *PATIENCE],
    "exact-windows": [*EXACT, "data.order=window"],
    "exact-mapped": [*EXACT, "data.memory=mapped"],
    "exact-debug": [*EXACT, "parallel.debug=true"],
    "allreduce": [],
    "sharded": ["parallel.strategy=sharded", "parallel.stage=3"],
    "hierarchical": ["parallel.strategy=hierarchical"],
    "local": ["parallel.strategy=local", "parallel.local_steps=2"],
    "int8": ["parallel.compression=int8"],
    "lbfgs": [*LBFGS, "model.l2=0.01", "train.epochs=12"],
    "patience": PATIENCE,
    "sparse": SPARSE,
}
# Of these the result depends on the number of ranks, by more than rounding.
LOOSE = ("local", "int8")


@pytest.fixture
def folder(folder, comm):
    if comm.rank == 0:
        x, y = make_rows()
        pairs = [" ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(row)) for row in x]
        lines = [f"{kind} {pair}\n" for kind, pair in zip(y, pairs)]
        (folder / "rows.svm").write_text("".join(lines))
    comm.Barrier()
    return folder


def train(folder, comm, *overrides, **how):
    return train_small(folder, comm, *ADAM, "model.dtype=float64", *overrides, **how)


class Lines:
    """A Console that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, text=""):
        self.lines.append(text)

    def __getattr__(self, name):
        return lambda *args: None


@pytest.fixture
def loads(monkeypatch):
    """A list that grows when this rank loads rows from files."""
    load, found = prepare.load, []

    def counting(*args, **options):
        found.append(args)
        return load(*args, **options)

    monkeypatch.setattr(prepare, "load", counting)
    return found


@pytest.fixture
def after(monkeypatch, comm):
    """Call functions on a rank when the training has done so many steps."""

    def at(actions, rank=0):
        on_step, left = checkpoints.Checkpoints.on_step, dict(actions)

        def counting(self):
            if comm.rank == rank and self._trainer.steps in left:
                left.pop(self._trainer.steps)()
            on_step(self)

        monkeypatch.setattr(checkpoints.Checkpoints, "on_step", counting)

    monkeypatch.setattr(requests, "EVERY_S", 0.0)
    return at


def asks(folder, n, name="run"):
    return lambda: requests.request_resize(str(folder / name), n)


@pytest.mark.mpi(min_size=3, max_size=3)
@pytest.mark.parametrize("case", CASES)
def test_joining_and_leaving(comm, folder, after, loads, case):
    how, console = CASES[case], Lines() if comm.rank == 0 else None
    want = train(folder, comm, *how, name="whole")
    n = {"lbfgs": 2}.get(case, 7)
    after({n: asks(folder, 3), 2 * n: asks(folder, 2)})
    loads.clear()
    found = train(folder, comm, *how, "elastic.ranks=1", console=console)
    again = [3, 2, 1] if case == "exact-mapped" else [1, 0, 0]  # else they move
    assert len(loads) == again[comm.rank]
    for key in ("epochs", "steps", "samples_seen", "kept_epoch", "ended"):
        assert found[key] == want[key]
    assert found["ranks"] == 2
    if comm.rank == 0:
        told = [line for line in console.lines if line.startswith("resized")]
        assert [line.split(" at ")[0] for line in told] == [
            "resized  1 -> 3 ranks",
            "resized  3 -> 2 ranks",
        ]
    assert not (folder / "run" / requests.STATUS).exists()
    pairs = list(zip(records(folder), records(folder, "whole"), strict=True))
    if case.startswith("exact"):
        assert found["weights_sha256"] == want["weights_sha256"]
        assert all(one == other for one, other in pairs)
    else:
        rel = 0.05 if case in LOOSE else 1e-6
        for one, other in pairs:
            assert one.keys() == other.keys()
            assert one["step"] == other["step"]
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=rel)


@pytest.mark.mpi(min_size=3, max_size=3)
def test_with_a_server(comm, folder, after):
    how = ["parallel.strategy=server", "optimizer.schedule=constant"]
    want = train(folder, comm, *how, name="whole")
    after({7: asks(folder, 3), 14: asks(folder, 2)})
    found = train(folder, comm, *how, "elastic.ranks=2")
    assert found["ranks"] == 2
    for key in ("epochs", "steps", "samples_seen"):
        assert found[key] == want[key]
    losses = [[r["train_loss"] for r in records(folder, n)] for n in ("run", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.mpi(min_size=3, max_size=3)
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_signal_while_ranks_are_parked(comm, folder, after, monkeypatch, rank):
    """It reaches an active rank, one that was active, or one that never was."""
    want = train(folder, comm, *EXACT, name="whole")

    def kill():
        (folder / "now").touch()

    after({5: asks(folder, 1), 9: kill})
    before = job.Crew._tell_of_signal

    def tell(self):
        if comm.rank == rank and (folder / "now").exists():
            (folder / "now").unlink()
            os.kill(os.getpid(), signal.SIGTERM)
        before(self)

    if rank == 0:
        after({9: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    monkeypatch.setattr(job.Crew, "_tell_of_signal", tell)
    more = ["train.epochs=100000"] if rank else []  # the signal takes a moment
    found = train(folder, comm, *EXACT, "elastic.ranks=2", *more)
    assert found["interrupted"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if rank == 0:
        comm.Barrier()
        found = train(folder, comm, *EXACT, resume="newest")
        assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=3, max_size=3)
def test_checkpoint_after_a_change_and_resumed(comm, folder, after):
    how = [*EXACT, "checkpoint.every_steps=4", "checkpoint.keep=99"]
    want = train(folder, comm, *EXACT, name="whole")
    after({4: asks(folder, 3), 9: asks(folder, 1)})
    found = train(folder, comm, *how, "elastic.ranks=2")
    assert found["weights_sha256"] == want["weights_sha256"]
    assert "interrupted" not in found
    entries = store.entries(folder / "run" / "checkpoints")
    assert [entry.step for entry in entries] == [4, 8, 12, 16, 20]
    for entry in entries[1:3]:
        again = train(folder, comm, *EXACT, resume=entry.path, name="again")
        assert again["weights_sha256"] == want["weights_sha256"]
        assert records(folder, "again") == records(folder, "whole")


@pytest.mark.mpi(min_size=3, max_size=3)
@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_changes_and_a_signal_while_checkpoints_are_written(
    comm, folder, after, monkeypatch, asynchronous
):
    """One after the other, the last one together with the signal, which comes first."""
    want = train(folder, comm, *EXACT, name="whole")
    write_share = write.write_share

    def slowly(*args):
        time.sleep(0.1)
        return write_share(*args)

    def both():
        asks(folder, 3)()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(write, "write_share", slowly)
    after({3: asks(folder, 3), 4: asks(folder, 1), 5: asks(folder, 2), 9: both})
    how = [*EXACT, "checkpoint.every_steps=2", "elastic.ranks=2"]
    how += [f"checkpoint.asynchronous={asynchronous}"]
    first = train(folder, comm, *how)
    assert first["interrupted"] == "SIGTERM"
    assert first["step"] == first["new_steps"] == 10
    comm.Barrier()
    assert not (folder / "run" / requests.REQUEST).exists()
    found = train(folder, comm, *how, resume="newest")
    assert found["weights_sha256"] == want["weights_sha256"]


@pytest.mark.mpi(min_size=3, max_size=3)
def test_requests_that_are_refused(comm, folder, after):
    shards, said = "[parallel] virtual_shards = 2", []
    path = folder / "run" / requests.REQUEST

    def refused(n):
        with pytest.raises(ConfigError) as caught:
            asks(folder, n)()
        said.append(str(caught.value).partition(": ")[2])

    def ask():
        refused(4)
        refused(3)
        path.write_text('{"ranks": 3}')  # of a program that does not look

    console = Lines() if comm.rank == 0 else None
    texts = {
        6: lambda: path.write_text("[]"),
        8: lambda: path.write_text('{"ranks": "2"}'),
        10: asks(folder, 1),
        12: lambda: path.write_bytes(b"\xff" * 5000),
        14: lambda: os.mkfifo(path),
        16: path.mkdir,  # which stays, and is told of once
    }
    after({4: ask, **texts})
    how = [*EXACT, "parallel.virtual_shards=2", "elastic.ranks=1"]
    found = train(folder, comm, *how, console=console)
    assert (found["ranks"], found["steps"]) == (1, 20)
    if comm.rank == 0:
        assert said == [
            "no change to 4 ranks: the job has 3 ranks",
            f"no change to 3 ranks: {shards} takes between 1 and 2",
        ]
        told = [line for line in console.lines if line.startswith("warning")]
        words = ["shards = 2", "JSON object", "json: ranks: expected", "cannot be"]
        words += ["json: is not a file"] * 2
        assert all(word in line for word, line in zip(words, told, strict=True))
        with pytest.raises(DataError, match="no training runs there"):
            asks(folder, 1)()


@pytest.mark.mpi(min_size=3, max_size=3)
def test_more_ranks_than_the_job_has(comm, folder):
    with pytest.raises(ConfigError, match="ranks = 5, but the job has only 3 ranks"):
        train(folder, comm, "elastic.ranks=5")


@pytest.mark.mpi(min_size=3, max_size=3)
def test_error_of_the_active_ranks_is_that_of_all(comm, folder, after, monkeypatch):
    with pytest.raises(ConfigError, match=r"virtual_shards"):
        train(folder, comm, *EXACT, "parallel.virtual_shards=1", "elastic.ranks=2")
    load, loads = prepare.load, []

    def once(*args, **options):
        loads.append(1)
        with together(options["comm"]):
            if comm.rank == 0 and len(loads) > 1:
                raise DataError("gone")
        return load(*args, **options)

    monkeypatch.setattr(prepare, "load", once)
    after({5: asks(folder, 2)})
    with pytest.raises(DataError, match="gone"):
        how = ["data.memory=mapped", "parallel.debug=true"]
        train(folder, comm, "elastic.ranks=1", *how)
    assert not (folder / "run" / requests.STATUS).exists()
