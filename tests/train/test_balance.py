"""Rows move from slow ranks to fast ones; the steps stay the same."""

import io
import json

import gpus
import numpy as np
import pytest
from serial import N_CLASSES, N_FEATURES, assert_close, make_data
from spread import dataset

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.config.config import parse
from pympi_train.data.sources.mapped import MappedDataset
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Tensor
from pympi_train.runs import job
from pympi_train.runs.terminal.console import Console
from pympi_train.trace.laps import Laps
from pympi_train.train.record import SPEED_S, Speed

EPOCHS, BATCH, REPEATS = 5, 100, 10
EXACT = {"reduction": "exact", "virtual_shards": 20}
CASES = {
    "allreduce": {"strategy": "allreduce"},
    "hierarchical": {"strategy": "hierarchical"},
    "sharded": {"strategy": "sharded", "stage": 3},
    "int8": {"compression": "int8"},
    "exact": EXACT,
}


def rows(comm, how):
    """Some thousand rows, evenly on the ranks."""
    x, y = make_data("classes")
    x = np.concatenate([x + i for i in range(REPEATS)])
    data = dataset(comm, "even", x, np.tile(y, REPEATS))
    if how == "window":
        data.order = pt.WindowOrder(16, 8)
    if how == "sparse":
        from scipy.sparse import csr_array

        data = pt.SparseDataset(csr_array(data.x), data.y, comm=comm)
    return data


class Slow:
    """A model whose time is planted: a second a row, two on the last rank."""

    def __init__(self, model, comm):
        self.model, self.laps, self.seen = model, None, []
        self.row_s = 2.0 if comm.rank == comm.size - 1 else 1.0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def loss(self, params, batch):
        if self.laps is not None:
            self.laps.seconds["compute"] += self.row_s * len(batch.x)
            self.seen.append(batch.rows)
        return self.model.loss(params, batch)


def trained(comm, data, parallel, *, balance, optimizer=None, fits=(EPOCHS,), **kwargs):
    """Return the parameters, the records, and the row numbers that were computed."""
    model = pt.MLP(N_FEATURES, [6], N_CLASSES, dtype="float64")
    if isinstance(optimizer, pt.LBFGS) or data.is_sparse:
        model = pt.Softmax(N_FEATURES, N_CLASSES, dtype="float64")
    model = Slow(model, comm)
    how = {"batch_size": BATCH, "backend": "numpy", "parallel": parallel, **kwargs}
    how["optimizer"] = pt.Adam(0.01) if optimizer is None else optimizer
    with pt.Trainer(model, comm=comm, **how) as trainer:
        records = []
        model.laps = trainer.laps
        for epochs in fits:
            records += trainer.fit(data, epochs=epochs, balance=balance)
        return trainer.params.copy(), records, model.seen


def require_balance(comm, records, n):
    """Assert that the last rank had about half as many rows as the others."""
    first, last = records[0], records[-1]
    assert first["rows_most"] - first["rows_least"] <= 1 + n // 20
    if comm.size == 1:
        return
    assert last["rank_of_least"] == comm.size - 1
    ideal_s = n / (comm.size - 0.5)
    assert max(last["rows_most"], 2 * last["rows_least"]) <= 1.07 * ideal_s


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_without_balance(comm, name):
    parallel = pt.Parallel(timeout_s=0, **CASES[name])
    data = rows(comm, "full")
    got, records, seen = trained(comm, data, parallel, balance=True)
    want, plain, _ = trained(comm, rows(comm, "full"), parallel, balance=False)
    require_balance(comm, records, data.n)
    assert "rows_least" not in plain[0]
    if name == "exact":
        assert got.tobytes() == want.tobytes()
    elif name != "int8":  # its residuals are those of ranks
        assert_close(got, want)
    mine = np.concatenate([np.r_[part] for part in seen])
    counts = np.zeros(data.n, int)
    np.add.at(counts, mine, 1)
    assert (comm.allreduce(counts) == EPOCHS).all()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["window", "sparse", "lbfgs", "one epoch a fit"])
def test_other_orders_rows_and_fits(comm, how):
    kwargs = {"lbfgs": {"optimizer": pt.LBFGS(), "l2": 0.1}}.get(how, {})
    if how == "one epoch a fit":
        kwargs["fits"] = [1] * EPOCHS
    parallel = pt.Parallel(strategy="allreduce", timeout_s=0)
    data = rows(comm, how)
    got, records, _ = trained(comm, data, parallel, balance=True, **kwargs)
    want, *_ = trained(comm, rows(comm, how), parallel, balance=False, **kwargs)
    require_balance(comm, records, data.n)
    assert_close(got, want)
    counts = comm.allgather(len(data))
    assert sum(counts) == data.n and counts[comm.rank] == data.stop - data.start
    assert (min(counts), max(counts)) == tuple(
        records[-1][key] for key in ("rows_least", "rows_most")
    )


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
@pytest.mark.mpi(min_size=2)
def test_rows_on_gpus_move(comm, monkeypatch, tmp_path):
    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))
    parallel, data = pt.Parallel(timeout_s=0), rows(comm, "full")
    how = {"optimizer": pt.SGD(0.1), "fits": (3,)}
    got, records, _ = trained(
        comm, data, parallel, balance=True, backend="cuda", **how
    )
    want, *_ = trained(comm, rows(comm, "full"), parallel, balance=False, **how)
    assert_close(got, want)
    require_balance(comm, records, data.n)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("staleness", [0, 2])
def test_workers_of_a_server(comm, staleness):
    x, y = make_data("classes")
    parallel = pt.Parallel(strategy="server", staleness=staleness, timeout_s=0)
    found = []
    for balance in (True, False):
        model = Slow(pt.MLP(N_FEATURES, [6], N_CLASSES, dtype="float64"), comm)
        how = {"batch_size": 20, "backend": "numpy", "parallel": parallel}
        with pt.Trainer(model, pt.SGD(0.1), comm=comm, **how) as trainer:
            data, model.row_s = None, 1.0
            if not trainer.serves:
                model.laps = trainer.laps
                model.row_s = 2.0 if trainer.comm.rank else 1.0
                data = dataset(trainer.comm, "even", x, y)
            records = trainer.fit(data, epochs=4, balance=balance)
            if balance and not trainer.serves and trainer.comm.size == 2:
                assert records[-1]["rank_of_least"] == 1
                assert abs(records[-1]["rows_least"] - len(x) / 3) < 4
            found.append(trainer.params.copy())
    if staleness == 0:
        assert_close(*found)


@pytest.mark.mpi(min_size=2)
def test_rows_that_are_validation_rows_too_are_evaluated_once(comm):
    """A model without ``y_dtype`` evaluates the rows of the data set itself."""
    x, y = make_data("classes")
    y = y[:, None] / 2
    losses = []
    for balance in (True, False):
        data, model = dataset(comm, "even", x, y), Slow(least_squares(), comm)
        how = {"batch_size": 10, "backend": "numpy", "comm": comm}
        with pt.Trainer(model, pt.SGD(0.01), **how) as trainer:
            model.laps = trainer.laps
            records = trainer.fit(data, data, epochs=3, balance=balance)
        losses.append([record["validation_loss"] for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def least_squares():
    def half_squares(params, batch, grads):
        error = batch.x @ params["w"] - batch.y
        grads["w"][...] = batch.x.T @ error
        return 0.5 * float((error**2).sum())

    tensors = [Tensor("w", (N_FEATURES, 1))]
    return pt.FunctionModel(tensors, half_squares, dtype="float64")


@pytest.mark.mpi(min_size=2)
def test_an_interrupted_epoch_goes_on_with_the_rows_that_moved(comm):
    parallel = pt.Parallel(timeout_s=0, **EXACT)
    want, *_ = trained(comm, rows(comm, "full"), parallel, balance=False)
    data = rows(comm, "full")
    model = Slow(pt.MLP(N_FEATURES, [6], N_CLASSES, dtype="float64"), comm)
    how = {"batch_size": BATCH, "backend": "numpy", "parallel": parallel}
    with pt.Trainer(model, pt.Adam(0.01), comm=comm, **how) as trainer:
        model.laps = trainer.laps

        def on_step(epoch, done, total):
            if (epoch, done) == (3, 4) and comm.rank == 0:
                trainer.request_stop()

        records = trainer.fit(data, epochs=EPOCHS, balance=True, on_step=on_step)
        assert len(records) == 2 and 4 <= trainer.progress.batch < 11
        records = trainer.fit(data, epochs=EPOCHS - 2, balance=True)
        assert records[0]["rank_of_least"] == comm.size - 1
        assert trainer.params.tobytes() == want.tobytes()


@pytest.mark.mpi(min_size=2)
def test_refusals(comm):
    data = rows(comm, "full")
    local = pt.Parallel(strategy="local", timeout_s=0)
    with pytest.raises(ConfigError, match="not work with strategy local") as caught:
        trained(comm, data, local, balance=True)
    assert is_agreed(caught.value, comm)
    if comm.rank == 0:
        data.x = data.x.view(np.memmap)  # on one rank alone
    with pytest.raises(ConfigError, match="reads its own alone") as caught:
        trained(comm, data, pt.Parallel(timeout_s=0), balance=True)
    assert is_agreed(caught.value, comm)


CONFIG = """
[data]
train = "x.npy"
target = "y.npy"
memory = "mapped"
order = "window"
validation = 0.2
[model]
kind = "softmax"
[train]
epochs = 4
backend = "numpy"
[elastic]
balance = true
"""


@pytest.mark.mpi(min_size=2)
def test_from_a_configuration(comm, mpi_tmp_path, monkeypatch):
    x, y = make_data("classes")
    if comm.rank == 0:
        np.save(mpi_tmp_path / "x.npy", np.tile(x, (REPEATS, 1)))
        np.save(mpi_tmp_path / "y.npy", np.tile(y, REPEATS))
    comm.Barrier()
    seconds = {"compute": 1e5 if comm.rank == comm.size - 1 else 5e4}

    def add(speed, laps, n_rows):
        laps.seconds["compute"] = seconds["compute"] * n_rows
        plain_add(speed, laps, n_rows)

    plain_add = Speed.add
    monkeypatch.setattr(Speed, "add", add)
    moved, plain = [], MappedDataset.moved
    monkeypatch.setattr(
        MappedDataset, "moved", lambda *a: moved.append(plain(*a)) or moved[-1]
    )
    output = io.StringIO()
    console = Console(output) if comm.rank == 0 else None
    result = job.train(parse(CONFIG, folder=mpi_tmp_path), comm, console)
    with open(f"{result['directory']}/metrics.jsonl") as lines:
        records = [json.loads(line) for line in lines]
    require_balance(comm, records, 0.8 * len(y) * REPEATS)
    assert all(isinstance(data, MappedDataset) for data in moved)
    if comm.size == 3 and comm.rank == 0:
        text = output.getvalue()
        assert "balance  rank 2 computed 21 % of the rows, others up to 40" in text


def test_short_times_add_up():
    from mpi4py import MPI

    laps, speed, alone = Laps(), Speed(), MPI.COMM_SELF
    laps.seconds["compute"] = 0.6 * SPEED_S
    assert speed.take(alone) == 0
    speed.add(laps, 30)
    assert speed.take(alone) == 0
    speed.add(laps, 90)
    assert speed.take(alone) == pytest.approx(120 / (1.2 * SPEED_S))
    assert speed.take(alone) == 0
