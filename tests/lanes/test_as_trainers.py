"""A lane gives what a Trainer gives in which the rows of its fold have weight 0."""

import numpy as np
import pytest
from lanes_apart import data_set, model_of, rows_of, train_alone
from mpi4py import MPI

import pympi_train as pt
from pympi_train.errors import DivergenceError
from pympi_train.lanes.folds import rows_of_fold
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.train import train_lanes
from pympi_train.optim.schedule import Cosine

OPTIMIZERS = {
    "gd": lambda: pt.GD(0.1),
    "sgd": lambda: pt.SGD(0.1, weight_decay=0.01),
    "momentum": lambda: pt.SGD(0.1, momentum=0.9),
    "nesterov": lambda: pt.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.02),
    "adam": lambda: pt.Adam(weight_decay=0.02),
    "adamw": lambda: pt.AdamW(),
    "adagrad": lambda: pt.AdaGrad(weight_decay=0.01),
}
# Every kind of rows and settings with every optimizer, not every combination.
SETTINGS = [
    dict(is_sparse=False, weighted=False, backend="numba", clip_norm=None),
    dict(is_sparse=False, weighted=True, backend="numpy", clip_norm=0.5),
    # Batches in which a lane has no training row.
    dict(is_sparse=True, weighted=True, backend="numba", clip_norm=None, batch_size=2),
]
LANES = [Lane(0.1, 0.01, 0), Lane(0.02, 0.0, 0), Lane(0.3, 0.0), Lane(0.05, 0.1, 2)]


def difference(results, alone):
    """Return the largest difference of weights and of records of lanes."""
    found = []
    for result, (history, weights) in zip(results, alone):
        found += [np.abs(weights[n] - result.weights[n]).max() for n in weights]
        assert len(history) == len(result.records)
        for theirs, own in zip(history, result.records):
            assert {"epoch", "step", "train_loss"} <= set(own)
            assert ("validation_loss" in own) == (result.lane.fold is not None)
            found += [abs(theirs[key] - own[key]) for key in own]
    return max(found)


def check_optimizer(comm, kind, name):
    make, intercept = OPTIMIZERS[name], name != "sgd"
    for how in SETTINGS:
        how = dict(how)
        is_sparse, weighted = how.pop("is_sparse"), how.pop("weighted")
        arrays = rows_of(kind, is_sparse, weighted)
        data, own = data_set(*arrays[:3], is_sparse, comm)
        how = dict(batch_size=10, epochs=2, seed=3, micro_batch_size=7) | how
        how["schedule"] = Cosine(0.1, warmup_epochs=0.3)
        folds = arrays[3][own]
        made_of = model_of(kind, intercept), make(), LANES, data
        results = train_lanes(*made_of, folds=folds, comm=comm, **how)
        assert {result.status for result in results} == {"finished"}
        alone = [
            train_alone(
                make(), lane, arrays, is_sparse, comm, model_of(kind, intercept), **how
            )
            for lane in LANES[:: 1 if name == "adam" else 2]
        ]
        used = results[:: 1 if name == "adam" else 2]
        assert difference(used, alone) < 1e-10


CASES = [("softmax", name) for name in OPTIMIZERS] + [
    (kind, name) for kind in ("linear", "logistic") for name in ("momentum", "adam")
]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind, name", CASES)
def test_optimizers(comm, kind, name):
    check_optimizer(comm, kind, name)


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("kind", ["linear", "logistic", "softmax"])
def test_optimizers_on_one_rank(kind, name):
    check_optimizer(MPI.COMM_SELF, kind, name)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("kind", ["linear", "logistic", "softmax"])
def test_lbfgs(comm, kind, is_sparse):
    arrays = rows_of(kind, is_sparse, True)
    data, own = data_set(*arrays[:3], is_sparse, comm)
    lanes = [Lane(None, l2, fold) for l2 in (0.03, 1.0) for fold in (0, 2, None)]
    how = {"epochs": 200, "micro_batch_size": 40, "backend": "numpy", "comm": comm}
    make, folds = (lambda: pt.LBFGS(tolerance=1e-8, ftol=0)), arrays[3][own]
    results = train_lanes(model_of(kind), make(), lanes, data, folds=folds, **how)
    for result in results:
        made_of = make(), result.lane, arrays, is_sparse, comm, model_of(kind)
        how.pop("comm", None)
        history, weights = train_alone(*made_of, **how)
        assert result.status == "finished"
        # The last digits decide on the end of a search; the minimum is the same.
        for name in weights:
            assert np.abs(weights[name] - result.weights[name]).max() < 1e-6
        theirs, own = history[-1], result.records[-1]
        assert ("validation_loss" in own) == (result.lane.fold is not None)
        assert own["largest_gradient"] <= 1e-8
        for key in set(own) - {"epoch", "step"}:
            assert abs(theirs[key] - own[key]) < 1e-6
        for theirs, own in zip(history[:5], result.records[:5]):
            assert abs(theirs["train_loss"] - own["train_loss"]) < 1e-10


def test_a_penalty_that_is_too_large_diverges_with_clipping():
    """The first step is finite; the norm of the second, with the penalty, is not."""
    arrays = rows_of("logistic", False, False)
    data, _ = data_set(*arrays[:3], False, MPI.COMM_SELF)
    how = {"clip_norm": 2.0, "comm": MPI.COMM_SELF}
    model, lane = model_of("logistic"), Lane(1e300, 0.1)
    (result,) = train_lanes(model, pt.GD(1), [lane], data, epochs=4, **how)
    with pt.Trainer(model, pt.GD(1e300), l2=0.1, **how) as trainer:
        with pytest.raises(DivergenceError, match="the gradient became NaN"):
            trainer.fit(data, epochs=4)
        assert (result.status, trainer.steps) == ("diverged", 1)
    assert result.message == "the gradient became NaN or infinite at step 2"


def check_standardised(comm, is_sparse, intercept, virtual_shards=None):
    x, y, weights, folds = rows_of("logistic", is_sparse, False)
    x = x * [1, 10, 0.1, 3, 1, 1]
    if not is_sparse:
        x += [5, 0, 1, 2, 100, 0]
    x[folds != 1, 5] = 0.5  # constant in the training rows of fold 1
    data, own = data_set(standardised(x, x, is_sparse), y, weights, is_sparse, comm)
    lanes = [Lane(0.1, 0.01, 0), Lane(0.05, 0.1, 1), Lane(0.1)]
    how = {"batch_size": 10, "epochs": 3}
    results = train_lanes(
        model_of("logistic", intercept),
        pt.Adam(),
        lanes,
        data,
        folds=folds[own],
        standardise=True,
        scale=mean_and_scale(x)[1],
        virtual_shards=virtual_shards,
        comm=comm,
        **how,
    )
    alone = []
    for lane in lanes:
        arrays = standardised(x, x[folds != lane.held], is_sparse), y, weights, folds
        model = model_of("logistic", intercept)
        made_of = pt.Adam(), lane, arrays, is_sparse, comm, model
        alone.append(train_alone(*made_of, **how))
    assert difference(results, alone) < 1e-10


def mean_and_scale(x):
    mean, scale = x.mean(axis=0), x.std(axis=0)
    is_constant = x.min(axis=0) == x.max(axis=0)
    mean[is_constant], scale[is_constant] = x[0, is_constant], 1.0
    return mean, scale


def standardised(x, of, is_sparse):
    mean, scale = mean_and_scale(of)
    return (x - (0 if is_sparse else mean)) / scale


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_standardised_by_fold(comm, is_sparse, intercept):
    check_standardised(comm, is_sparse, intercept)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_standardised_by_fold_in_exact_mode(comm, is_sparse):
    check_standardised(comm, is_sparse, True, virtual_shards=8)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_rows_for_a_trainer(comm, is_sparse):
    arrays = rows_of("softmax", is_sparse, True)
    data, own = data_set(*arrays[:3], is_sparse, comm)
    train, validation = rows_of_fold(data, arrays[3][own], 1, comm)
    with pt.Trainer(model_of("softmax"), pt.SGD(0.1), comm=comm) as trainer:
        history = trainer.fit(train, validation, epochs=2)
        weights = {n: w.copy() for n, w in trainer.weights().items()}
    lane, made_of = Lane(0.1, 0.0, 1), (model_of("softmax"), pt.SGD(1))
    results = train_lanes(
        *made_of, [lane], data, folds=arrays[3][own], epochs=2, comm=comm
    )
    assert difference(results, [(history, weights)]) < 1e-10


@pytest.mark.mpi(min_size=2)
def test_validation_rows(comm):
    x, y, _, folds = rows_of("linear", False, False)
    data, _ = data_set(x[:60], y[:60], None, False, comm)
    held, _ = data_set(x[60:], y[60:], None, False, comm)
    how = {"epochs": 3, "batch_size": 16, "comm": comm}
    with pt.Trainer(model_of("linear"), pt.SGD(0.1), batch_size=16, comm=comm) as t:
        history = t.fit(data, held, epochs=3)
    made_of = model_of("linear"), pt.SGD(1), [Lane(0.1), Lane(0.2)], data
    results = train_lanes(*made_of, validation=held, **how)
    for theirs, own in zip(history, results[0].records):
        assert {"validation_loss", "rmse", "r2"} <= set(own)
        assert max(abs(theirs[key] - own[key]) for key in own) < 1e-10
