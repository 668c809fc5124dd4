"""The strategy that "auto" resolves to, and its report."""

import pytest
from serial import BATCH, SEED, make_data, require_serial
from spread import dataset

import pympi_train as pt
from pympi_train.errors import ConfigError
from pympi_train.parallel import allreduce, hierarchical, overlap, trials


def resolved(comm, parallel, optimizer=None):
    """Return the trainer's ``resolved`` and ``exchange``."""
    model = pt.Softmax(5, 3, dtype="float64")
    optimizer = optimizer or pt.Adam(0.01)
    with pt.Trainer(
        model, optimizer, parallel=parallel, comm=comm, backend="numpy"
    ) as trainer:
        return trainer.resolved, trainer.exchange


@pytest.fixture
def decisions(monkeypatch):
    """Measure blocks of any size, let the last candidate win; list the candidates."""
    seen = []

    def last(seconds, default):
        seen.append(tuple(seconds))
        return list(seconds)[-1]

    monkeypatch.setattr(allreduce, "fits", lambda comm, block: False)
    monkeypatch.setattr(trials, "LEAST_BYTES", 1)
    monkeypatch.setattr(trials, "fastest", last)
    monkeypatch.setattr(trials, "BUDGET_S", 0.01)
    return seen


@pytest.mark.mpi(min_size=2)
def test_auto_becomes_what_is_fastest(comm, decisions):
    parallel, told = resolved(comm, pt.Parallel())
    assert ("allreduce", "hierarchical") in decisions
    assert parallel.strategy == told["strategy"] == "hierarchical"
    assert told["strategy_seconds"].keys() == {"allreduce", "hierarchical"}
    assert comm.allgather(told) == [told] * comm.size


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["mlp-accumulated", "mlp-gelu-regression-clipped"])
def test_auto_takes_the_same_steps(comm, decisions, name):
    require_serial(comm, name, "hole")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "parallel, optimizer",
    [
        (pt.Parallel(overlap="on"), None),
        (pt.Parallel(bucket_bytes=2048), None),
        (pt.Parallel(), pt.LBFGS()),
        (pt.Parallel(strategy="allreduce"), None),
    ],
)
def test_what_only_allreduce_can_do_is_left_to_it(
    comm, decisions, parallel, optimizer
):
    parallel, told = resolved(comm, parallel, optimizer)
    assert ("allreduce", "hierarchical") not in decisions
    assert parallel.strategy == "allreduce"
    assert told["exchange"] == "slices"


@pytest.mark.mpi(min_size=2)
def test_too_little_shared_memory_leaves_allreduce(comm, monkeypatch, decisions):
    def refuse(n_bytes, instead):
        raise ConfigError("too little")

    monkeypatch.setattr(hierarchical, "require_space", refuse)
    parallel, told = resolved(comm, pt.Parallel())
    assert parallel.strategy == "allreduce"
    assert "strategy_seconds" not in told


@pytest.mark.mpi(min_size=2)
def test_small_models_are_not_measured(comm, monkeypatch):
    monkeypatch.setattr(trials, "time_candidates", None)
    parallel, told = resolved(comm, pt.Parallel())
    assert told == {"strategy": "allreduce", "exchange": "node", "overlap": "off"}
    assert (parallel.strategy, parallel.overlap) == ("allreduce", "off")


def test_one_rank_measures_nothing(decisions):
    MPI = pytest.importorskip("mpi4py.MPI")
    parallel, told = resolved(MPI.COMM_SELF, pt.Parallel())
    assert (parallel.strategy, parallel.overlap) == ("allreduce", "auto")
    assert told == {"strategy": "allreduce", "exchange": "mpi", "overlap": "off"}
    assert not decisions


@pytest.mark.mpi(min_size=2)
def test_overlap_is_told_once_it_is_decided(comm, monkeypatch):
    monkeypatch.setattr(trials, "LEAST_BYTES", 64)
    monkeypatch.setattr(overlap, "MAX_COUNT", 64)
    x, y = make_data("classes")
    model = pt.MLP(5, [8, 6], 3, dtype="float64")
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": "numpy"}
    parallel = pt.Parallel(strategy="allreduce")
    with pt.Trainer(
        model, pt.SGD(0.1), parallel=parallel, comm=comm, **kwargs
    ) as trainer:
        monkeypatch.undo()
        assert trainer.resolved.overlap == "auto"
        trainer.fit(dataset(comm, "even", x, y), epochs=3)
        assert trainer.resolved.overlap in ("on", "off")
        assert trainer.exchange["overlap_seconds"].keys() == {"on", "off"}
