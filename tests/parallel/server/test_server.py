"""Parameter servers: the steps of one process, or within ``staleness`` of them."""

import contextlib
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from serial import (
    BATCH,
    CASES,
    EPOCHS,
    N_CLASSES,
    N_FEATURES,
    SEED,
    N,
    assert_close,
    assert_same_records,
    make_data,
    mlp,
    softmax,
    train,
)
from spread import dataset, require_empty_shares

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.errors import ConfigError, DivergenceError, RemoteRankError
from pympi_train.parallel.server import mail, server
from pympi_train.parallel.server.link import Link
from pympi_train.parallel.server.server import Server

N_STEPS = -(-N // BATCH)  # per epoch
DIGITS = Path(__file__).parents[3] / "examples" / "digits.npz"


@contextlib.contextmanager
def trainer(comm, model, optimizer, *, servers=1, staleness=0, **kwargs):
    compression = kwargs.pop("compression", "none")
    parallel = pt.Parallel(
        strategy="server",
        servers=servers,
        staleness=staleness,
        compression=compression,
    )
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": "numpy", **kwargs}
    with pt.Trainer(
        model, optimizer, parallel=parallel, comm=comm, **kwargs
    ) as trained:
        assert trained.serves == (comm.rank >= comm.size - servers)
        yield trained


def rows(trained, kind, spread="hole"):
    """Return the rows of a worker, or None on a server."""
    if trained.serves:
        return None
    if trained.comm.size == 1:
        spread = "even"
    return dataset(trained.comm, spread, *make_data(kind))


def fit(trained, data, validation=None, **kwargs):
    """Call ``Trainer.fit``; check equal parameters; return the records on all ranks."""
    everyone = trained._everyone
    records = trained.fit(data, validation, **kwargs)
    assert trained.serves is (not records)
    records = everyone.bcast(records, root=0)
    assert len({*everyone.allgather(trained.params.tobytes())}) == 1
    return records


def require_serial_by_servers(comm, name, spread, servers):
    from mpi4py import MPI

    kind, make_model, make_optimizer, kwargs = CASES[name]
    optimizer = make_optimizer()
    with trainer(comm, make_model(), optimizer, servers=servers, **kwargs) as trained:
        data = rows(trained, kind, spread)
        if data is not None and trained.comm.size > 1:
            require_empty_shares(trained.comm, data, BATCH, seed=SEED, epochs=EPOCHS)
        records = fit(trained, data, data, epochs=EPOCHS)
        params, steps = trained.params.copy(), trained.steps
    alone = dataset(MPI.COMM_SELF, "even", *make_data(kind))
    want, want_records = train(
        MPI.COMM_SELF, make_model(), make_optimizer(), alone, alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)
    assert steps == records[-1]["step"] == EPOCHS * N_STEPS
    return records


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "name, spread",
    [*((name, "hole") for name in CASES), ("mlp-gelu-regression-clipped", "even")],
)
def test_workers_equal_one_process(comm, name, spread):
    records = require_serial_by_servers(comm, name, spread, servers=1)
    size = CASES[name][1]().layout.size
    assert records[0]["sent_bytes"] == N_STEPS * (8 * size + 80)


@pytest.mark.mpi(min_size=5)
@pytest.mark.parametrize("name", CASES)
def test_three_workers_and_two_servers_equal_one_process(comm, name):
    require_serial_by_servers(comm, name, "hole", servers=2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("staleness", [0, 2])
def test_a_gradient_is_due_if_its_worker_goes_on(comm, monkeypatch, staleness):
    """The timeout counts between the steps of an epoch, and not around epochs."""
    waits, wait = [], server.note_wait

    def note_wait(*given):
        waits.append(given)
        wait(*given)

    monkeypatch.setattr(server, "note_wait", note_wait)
    how = {"staleness": staleness}
    with trainer(comm, softmax(), pt.SGD(0.1), **how) as trained:
        data = rows(trained, "classes")
        fit(trained, data, data, epochs=EPOCHS)
        n_workers = comm.size - 1
        most = EPOCHS * (N_STEPS - 1) * n_workers
        if not trained.serves:
            most = 0
        assert len(waits) <= most and bool(waits) is bool(most)
        assert staleness > 0 or len(waits) == most


@pytest.mark.mpi(min_size=3)
def test_more_servers_than_slices(comm):
    """A server may have no parameter at all."""
    model = pt.Linear(1, intercept=False, dtype="float64")
    with trainer(comm, model, pt.GD(0.2), servers=comm.size - 1) as trained:
        x = np.array([[1.0], [2.0], [3.0]])
        data = None if trained.serves else pt.Dataset(x, 2 * x, comm=trained.comm)
        fit(trained, data, epochs=20)
        assert trained.weights()["weight"] == pytest.approx(2, rel=1e-4)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("more", [0, 1])
def test_no_rank_left_to_work(comm, more):
    servers = comm.size + more
    with pytest.raises(ConfigError, match=f"start {servers + 1} ranks") as caught:
        pt.Trainer(
            softmax(),
            pt.SGD(0.1),
            parallel=pt.Parallel(strategy="server", servers=servers),
            comm=comm,
        )
    assert is_agreed(caught.value, comm)


@pytest.mark.mpi(min_size=3)
def test_early_stopping_and_training_on(comm):
    """Servers continue from the best parameters and state, as one process does."""
    from mpi4py import MPI

    def twice(trained, data, held):
        records = fit(trained, data, held, epochs=40, patience=2)
        return records + fit(trained, data, held, epochs=2)

    def parts(comm):
        x, y = make_data("classes")
        return (
            dataset(comm, "even", x[:61], y[:61]),
            dataset(comm, "even", x[61:], y[61:]),
        )

    with trainer(comm, mlp(), pt.Adam(0.02)) as trained:
        data, held = (None, None) if trained.serves else parts(trained.comm)
        records, params = twice(trained, data, held), trained.params.copy()
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": "numpy"}
    with pt.Trainer(mlp(), pt.Adam(0.02), comm=MPI.COMM_SELF, **kwargs) as alone:
        want = []
        for more in ({"epochs": 40, "patience": 2}, {"epochs": 2}):
            want += alone.fit(*parts(MPI.COMM_SELF), **more)
        assert 6 <= len(want) < 42
        assert_close(params, alone.params)
    assert_same_records(records, want)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("staleness", [0, 2])
def test_large_blocks_in_several_messages(comm, monkeypatch, staleness):
    """The messages are too large for MPI to buffer before they are received."""
    from mpi4py import MPI

    monkeypatch.setattr(mail, "pieces", partial(mail.pieces, count=70_001))

    def squares(params, batch, grads):
        error = batch.x - params["w"][:1]
        grads["w"][:] = -error.sum()
        return 0.5 * (error**2).sum()

    def model():
        return pt.FunctionModel([pt.Tensor("w", (400_000,))], squares, dtype="float64")

    x, y = np.arange(40.0)[:, None], np.zeros(40)
    kwargs = {"batch_size": 8, "staleness": staleness, "servers": max(1, comm.size - 3)}
    with trainer(comm, model(), pt.SGD(0.1), **kwargs) as trained:
        data = None if trained.serves else dataset(trained.comm, "hole", x, y)
        fit(trained, data, epochs=2)
        params = trained.params.copy()
    assert (params == params[0]).all() or staleness  # slices of several versions
    if staleness:
        assert 5 < params.min() <= params.max() < 25
    else:
        alone = dataset(MPI.COMM_SELF, "even", x, y)
        want, _ = train(
            MPI.COMM_SELF, model(), pt.SGD(0.1), alone, epochs=2, batch_size=8
        )
        assert_close(params, want)


class Spoiled(pt.Softmax):
    """Spoils one step on one rank."""

    def __init__(self, how, step):
        super().__init__(N_FEATURES, N_CLASSES, dtype="float64")
        self._how = how
        self._steps_left = step and step + 1  # the first call is a rehearsal

    def loss(self, params, batch):
        self._steps_left -= 1
        if self._steps_left == 0 and self._how == "loss":
            return np.nan
        if self._steps_left == 0 and self._how == "error":
            raise ZeroDivisionError("divided")
        return super().loss(params, batch)

    def gradient(self, params, grads):
        super().gradient(params, grads)
        if self._steps_left == 0 and self._how == "gradient":
            grads[0][1, 2] = np.inf


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_divergence_leaves_the_last_good_parameters(comm, how, staleness, clip_norm):
    kwargs = {"staleness": staleness, "clip_norm": clip_norm, "servers": comm.size - 2}
    model = Spoiled(how, 4 if comm.rank == 1 else 0)
    with trainer(comm, model, pt.Adam(0.1), **kwargs) as trained:
        data = rows(trained, "classes")
        with pytest.raises(DivergenceError, match="at step 4") as caught:
            trained.fit(data, epochs=2)
        assert is_agreed(caught.value, comm)
        params = trained.params.copy()
        assert len({*comm.allgather(params.tobytes())}) == 1
        assert np.isfinite(params).all() and params.any()
        if not trained.serves:
            assert trained.steps == 3
        fit(trained, data, epochs=1)  # training can continue


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("staleness", [0, 3])
def test_error_of_one_worker_is_raised_on_all(comm, staleness):
    last = comm.size - 2
    model = Spoiled("error", 5 if comm.rank == last else 0)
    with trainer(comm, model, pt.SGD(0.1), staleness=staleness) as trained:
        data = rows(trained, "classes")
        kind = ZeroDivisionError if comm.rank == last else RemoteRankError
        with pytest.raises(kind, match="divided") as caught:
            trained.fit(data, epochs=2)
        assert is_agreed(caught.value, comm)
        if comm.rank != last:
            assert caught.value.rank == last
            assert "in loss" in caught.value.traceback
        fit(trained, data, epochs=1)


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("how, kind", [("loss", DivergenceError), ("error", Exception)])
def test_servers_that_learn_of_it_at_different_times(comm, monkeypatch, how, kind):
    """One server reports to worker 0 that step 1 failed, the other sends parameters.

    The second server must then be asked again.
    """
    heard_first = {comm.size - 2: [1, 1], comm.size - 1: [0, 0, 0]}.get(comm.rank, [])
    plain = Server._next

    def hear(self):
        if not heard_first:
            return plain(self)
        kept = self._in_turn, self._present, self._turn
        self._in_turn, self._present, self._turn = True, [heard_first.pop(0)], 0
        try:
            return plain(self)
        finally:
            self._in_turn, self._present, self._turn = kept

    monkeypatch.setattr(Server, "_next", hear)
    model = Spoiled(how, 1 if comm.rank == 1 else 0)
    with trainer(comm, model, pt.Adam(0.1), servers=2, staleness=3) as trained:
        data = rows(trained, "classes")
        before = trained.params.copy()
        with pytest.raises(kind, match="divided|the loss became nan at step 1;"):
            trained.fit(data, epochs=1)
        assert heard_first == []
        assert (trained.params == before).all() or trained.serves
        fit(trained, data, epochs=1)


@pytest.mark.mpi(min_size=2)
def test_error_between_steps(comm):
    """The servers raise an error that all workers raise outside of steps."""
    with trainer(comm, softmax(), pt.SGD(0.1)) as trained:
        data = rows(trained, "classes")
        with pytest.raises((ValueError, RemoteRankError), match="monitor: expected"):
            trained.fit(data, epochs=2, monitor="nonsense")


@pytest.mark.mpi(min_size=3)
def test_synchronous_workers_are_heard_in_turn(comm, monkeypatch):
    """In a fixed order, so that sums have the same bits in each run."""
    heard, plain = [], Server._take

    def take(self, worker, request):
        if request.kind == mail.PUSH:
            heard.append(worker)
        plain(self, worker, request)

    plain_push = Link.push

    def push(self, *args, **numbers):
        sleep(0.05 if comm.rank == 0 else 0)
        plain_push(self, *args, **numbers)

    monkeypatch.setattr(Link, "push", push)
    monkeypatch.setattr(Server, "_take", take)
    with trainer(comm, softmax(), pt.SGD(0.1)) as trained:
        fit(trained, rows(trained, "classes"), epochs=1)
    in_turn = [*range(comm.size - 1)] * N_STEPS
    assert heard == (in_turn if comm.rank == comm.size - 1 else [])


class Slow(pt.Softmax):
    """Rank 0 waits in each step until a worker is ahead by the maximum staleness.

    ``done``, shape (workers,): steps computed by each worker, in shared memory.
    """

    def __init__(self, done, rank, staleness):
        super().__init__(N_FEATURES, N_CLASSES, dtype="float64")
        self._done, self._rank, self._staleness = done, rank, staleness
        self.behind = []  # steps that the slowest worker is behind, per step
        self.begun = False  # False during the rehearsal

    def loss(self, params, batch):
        if not self.begun:
            return super().loss(params, batch)
        done, rank = self._done, self._rank
        step = int(done[rank]) + 1
        self.behind.append(step - 1 - int(done.min()))
        if rank == 0:
            end = -(-step // N_STEPS) * N_STEPS  # of the epoch, where all synchronise
            while done[1:].max() < min(step + self._staleness, end):
                sleep(1e-4)
        return super().loss(params, batch)

    def gradient(self, params, grads):
        super().gradient(params, grads)
        self._done[self._rank] += self.begun
        self.begun = True


@contextlib.contextmanager
def shared_counts(comm, n):
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    window = MPI.Win.Allocate_shared(8 * n if node.rank == 0 else 0, 8, comm=node)
    counts = np.frombuffer(window.Shared_query(0)[0], dtype=np.int64, count=n)
    if node.rank == 0:
        counts[:] = 0
    node.Barrier()
    try:
        yield counts
    finally:
        window.Free()
        node.Free()


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("staleness", [1, 3])
def test_no_worker_is_further_ahead_than_staleness(comm, staleness):
    n_servers, versions = max(1, comm.size - 3), []
    with shared_counts(comm, comm.size - n_servers) as done:
        model = Slow(done, comm.rank, staleness)
        with trainer(
            comm, model, pt.SGD(0.1), staleness=staleness, servers=n_servers
        ) as trained:
            worker = trained.strategy

            def on_step(epoch, done, total):  # the next step uses them
                versions.append((epoch - 1) * total + done - worker.versions.min())

            fit(trained, rows(trained, "classes"), epochs=2, on_step=on_step)
        ahead = comm.allgather(max(model.behind, default=0))
        assert max(ahead) == staleness
        if trained.serves:
            return
        assert len(versions) == len(model.behind) == 2 * N_STEPS
        assert max(versions) <= staleness


@pytest.fixture(scope="module")
def digits():
    with np.load(DIGITS) as file:
        x, y = file["X"].astype(np.float32) / 16, file["y"].astype(np.int32)
    return x, y


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize(
    "staleness, compression, loss",
    [
        (0, "bf16", 0.15),
        (0, "fp16", 0.15),
        (0, "int8", 0.15),
        (2, "none", 0.6),  # varies between runs: 0.2 to 0.4 measured
        (2, "int8", 0.6),
    ],
)
def test_loss_on_digits_after_six_epochs(comm, digits, staleness, compression, loss):
    model = pt.MLP(64, [32], 10)
    kwargs = {"staleness": staleness, "compression": compression, "batch_size": 64}
    servers = max(1, comm.size - 3)
    with trainer(comm, model, pt.Adam(0.01), servers=servers, **kwargs) as trained:
        data = None if trained.serves else dataset(trained.comm, "hole", *digits)
        records = fit(trained, data, epochs=6)
        assert records[-1]["train_loss"] < loss < records[0]["train_loss"]
    width = {"none": 4, "int8": 1}.get(compression, 2)
    sent = width * model.layout.size * -(-len(digits[0]) // 64)
    assert sent < records[-1]["sent_bytes"] < 1.2 * sent
