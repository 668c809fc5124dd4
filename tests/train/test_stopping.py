"""When training stops early, and with which parameters."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.train.stopping import EarlyStopping, choose_monitor, when_reached

MPI = pytest.importorskip("mpi4py.MPI")


def watch(values, patience, monitor="train_loss", comm=MPI.COMM_SELF, first=1):
    """Return (last epoch, the one that was kept last)."""
    kept = []
    stopping = EarlyStopping(comm, patience, monitor, lambda: kept.append(epoch))
    for epoch, value in enumerate(values, start=first):
        stopping.take({"epoch": epoch, monitor: value})
        if stopping.is_over(epoch):
            break
    assert stopping.best["epoch"] == kept[-1]
    return epoch, kept[-1]


@pytest.mark.parametrize(
    "values, patience, last, best",
    [
        ([3, 2, 1, 0], 1, 4, 4),  # better to the end
        ([3, 2, 2, 2, 2], 2, 4, 2),  # equal is not better; the first of equals
        ([3, 4, 2, 5, 6, 7], 3, 6, 3),
        ([1, 2], 1, 2, 1),
        ([1, 2, 0.5, 2, 3], 2, 5, 3),  # starts to count anew
        ([np.nan, np.nan, np.nan], 2, 3, 1),
        ([np.inf, 5, 6], 5, 3, 2),
        ([np.nan, 5, 6], 5, 3, 2),
    ],
)
def test_stops_after_patience_and_goes_back(values, patience, last, best):
    assert watch(values, patience) == (last, best)
    losses = [-value for value in values]
    for monitor in ("accuracy", "r2"):
        assert watch(losses, patience, monitor) == (last, best)
    for monitor in ("rmse", "validation_loss"):
        assert watch(values, patience, monitor) == (last, best)


def test_epochs_may_go_on_from_an_earlier_training():
    assert watch([3, 2, 4, 4, 4, 4], 2, first=11) == (14, 12)


@pytest.mark.mpi(min_size=2)
def test_rank_0_decides(comm):
    """Ranks whose losses differ would otherwise part ways."""
    mine = [3, 2, 4, 4, 1] if comm.rank == 0 else [5, 4, 3, 2, 1]
    assert watch(mine, 2, comm=comm) == (4, 2)


@pytest.mark.parametrize(
    "monitor, values, target, epoch",
    [
        ("accuracy", [0.5, 0.9, 0.95], 0.9, 2),  # equal is reached
        ("r2", [-3, 0.2, 0.1], 0.3, None),
        ("rmse", [3, 2, 1], 2.5, 2),
        ("validation_loss", [np.nan, None, 1], 1, 3),
        ("train_loss", [np.inf, 2], 1, None),
    ],
)
def test_when_a_target_is_reached(monitor, values, target, epoch):
    records = [
        {"epoch": i, "step": 3 * i, "samples": 9 * i, "wall_s": 2.0, monitor: value}
        for i, value in enumerate(values, start=1)
    ]
    found = when_reached(records, monitor, target)
    if epoch is None:
        assert found is None
        return
    assert (found["epoch"], found["value"]) == (epoch, values[epoch - 1])
    assert (found["steps"], found["samples"]) == (3 * epoch, 9 * epoch)
    assert found["seconds"] == 2.0 * epoch


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer", [pt.Adam(0.1), pt.LBFGS()], ids=["adam", "lbfgs"])
def test_training_ends_at_its_target(comm, optimizer):
    from spread import dataset

    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 4))
    data = dataset(comm, "hole", x, x[:, :3].argmax(1))
    how = {"epochs": 30, "monitor": "validation_loss", "patience": 5}
    made_of = pt.Softmax(4, 3, dtype="float64"), optimizer
    with pt.Trainer(*made_of, batch_size=20, backend="numpy", comm=comm) as trainer:
        records = trainer.fit(data, data, target=0.5, **how)
        assert trainer.ended == "target" and trainer.kept == records[-1]
        losses = [record["validation_loss"] for record in records]
        assert losses[-1] <= 0.5 < min(losses[:-1])
        assert trainer.fit(data, data, target=0.0, **{**how, "epochs": 2})
        assert trainer.ended == "epochs"


def test_a_target_is_a_finite_number():
    data = pt.Dataset(np.ones((4, 2)), np.array([0, 1, 0, 1]), comm=MPI.COMM_SELF)
    with pt.Trainer(pt.Softmax(2, 2), pt.Adam(), comm=MPI.COMM_SELF) as trainer:
        for target in (np.nan, "0.9", True):
            with pytest.raises(ValueError, match="target: expected a finite number"):
                trainer.fit(data, data, epochs=1, target=target)


@pytest.mark.parametrize(
    "monitor, task, has_validation, key",
    [
        ("auto", None, False, "train_loss"),
        ("auto", "regression", True, "validation_loss"),
        ("train_loss", "classification", True, "train_loss"),
        ("accuracy", "classification", True, "accuracy"),
        ("rmse", "regression", True, "rmse"),
        ("r2", "regression", True, "r2"),
    ],
)
def test_choose(monitor, task, has_validation, key):
    assert choose_monitor(monitor, task, has_validation) == key


@pytest.mark.parametrize(
    "monitor, task, has_validation",
    [
        ("accuracy", "classification", False),
        ("accuracy", "regression", True),
        ("r2", "classification", True),
        ("validation_loss", None, False),
        ("rmse", None, True),
        ("loss", "regression", True),
    ],
)
def test_choose_refuses_what_no_record_has(monitor, task, has_validation):
    with pytest.raises(ValueError, match=f"monitor: .*train_loss.*got '{monitor}'"):
        choose_monitor(monitor, task, has_validation)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("monitor", ["auto", "train_loss", "accuracy"])
def test_training_ends_with_its_best_epoch(comm, monitor):
    """A rank has no row; the rows are noise, so validation soon gets worse."""
    from spread import dataset, require_empty_shares

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 6)), rng.integers(0, 3, 80)
    train = dataset(comm, "hole", x[:49], y[:49])
    held = dataset(comm, "last", x[49:], y[49:])
    require_empty_shares(comm, train, 12, seed=0, epochs=30)
    model = pt.MLP(6, [16], 3, dtype="float64")
    seen = []
    with pt.Trainer(
        model, pt.Adam(0.02), batch_size=12, backend="numpy", comm=comm
    ) as trainer:
        records = trainer.fit(
            train,
            held,
            epochs=30,
            patience=4,
            monitor=monitor,
            on_epoch=lambda record: seen.append(trainer.params.copy()),
        )
    key = {"auto": "validation_loss"}.get(monitor, monitor)
    sign = -1 if key == "accuracy" else 1
    values = [sign * record[key] for record in records]
    best = values.index(min(values))
    assert_array_equal(trainer.params, seen[best])
    if monitor == "train_loss":
        assert len(records) == 30  # falls to the end
    else:
        assert len(records) == best + 1 + 4 < 30
        assert not np.array_equal(seen[-1], seen[best])
    assert comm.allgather(trainer.params.tobytes()) == [
        trainer.params.tobytes()
    ] * comm.size
    assert comm.allgather(len(records)) == [len(records)] * comm.size


@pytest.mark.mpi(min_size=2)
def test_best_epoch_of_a_second_training_is_one_of_its_own(comm):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 6)), rng.integers(0, 3, 80)
    train = pt.Dataset.split(x[:49], y[:49], comm=comm)
    held = pt.Dataset.split(x[49:], y[49:], comm=comm)
    model = pt.MLP(6, [16], 3, dtype="float64")
    with pt.Trainer(
        model, pt.Adam(0.02), batch_size=12, backend="numpy", comm=comm
    ) as trainer:
        trainer.fit(train, held, epochs=2)
        records = trainer.fit(train, held, epochs=30, patience=2)
        kept = trainer.kept
    losses = [record["validation_loss"] for record in records]
    assert kept is records[losses.index(min(losses))]
    assert kept["epoch"] == 3 + losses.index(min(losses))


@pytest.mark.mpi(min_size=2)
def test_unknown_monitor_is_refused_before_the_first_step(comm):
    x = np.zeros((4, 2))
    data = pt.Dataset.split(x, x, comm=comm)
    with pt.Trainer(pt.Linear(2, 2, dtype="float64"), pt.GD(0.1), comm=comm) as trainer:
        with pytest.raises((ValueError, pt.errors.RemoteRankError), match="no valid"):
            trainer.fit(data, epochs=2, patience=1, monitor="rmse")
        assert (trainer.epoch, trainer.steps) == (0, 0)
