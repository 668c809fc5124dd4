"""How lanes end, and what the caller is told of bad input and of errors."""

import numpy as np
import pytest
from lanes_apart import data_set, model_of, rows_of

import pympi_train as pt
from pympi_train.errors import ConfigError, DataError, DivergenceError, RemoteRankError
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.train import train_lanes

pytestmark = pytest.mark.mpi(min_size=2)


def run(comm, lanes, kind="logistic", optimizer=None, **how):
    x, y, weights, folds = rows_of(kind, False, False)
    data, own = data_set(x, y, weights, False, comm)
    how = {"epochs": 4, "batch_size": 10, "folds": folds[own], "comm": comm} | how
    made_of = model_of(kind), optimizer or pt.SGD(1), lanes, how.pop("data", data)
    return train_lanes(*made_of, **how)


def test_a_lane_that_diverges_keeps_its_last_good_weights(comm):
    lanes = [Lane(0.1, 0.0, 0), Lane(1e7), Lane(0.1, 30.0, 1)]
    found = run(comm, lanes, "linear")
    assert [r.status for r in found] == ["finished", "diverged", "diverged"]
    assert "step" in found[1].message and "weight decay" in found[2].message
    assert not found[2].weights["weight"].any()
    x, y, _, _ = rows_of("linear", False, False)
    data, _ = data_set(x, y, None, False, comm)
    with pt.Trainer(model_of("linear"), pt.SGD(1e7), batch_size=10, comm=comm) as t:
        with pytest.raises(DivergenceError):
            t.fit(data, epochs=4)
        steps, weights = t.steps, t.weights()["weight"]
    assert f"at step {steps + 1}" in found[1].message
    np.testing.assert_allclose(found[1].weights["weight"], weights, rtol=1e-9)
    alone = run(comm, lanes[:1], "linear")
    assert len(found[0].records) == 4
    difference = found[0].weights["weight"] - alone[0].weights["weight"]
    assert np.abs(difference).max() < 1e-10


def test_lanes_that_are_dropped(comm):
    told = []

    def halve(epoch, results):
        told.append([r.records[-1]["epoch"] for r in results if r.status == "training"])
        # Only rank 0's answer counts.
        return [1, 2] if (epoch, comm.rank) == (2, 0) else []

    lanes = [Lane(0.1, 0.0, f) for f in (0, 1, 2)] + [Lane(0.2, 0.0, 0)]
    found = run(comm, lanes, on_epoch=halve)
    assert told == [[1] * 4, [2] * 4, [3] * 2]
    assert [r.status for r in found] == ["finished", "dropped", "dropped", "finished"]
    assert [len(r.records) for r in found] == [4, 2, 2, 4]


@pytest.mark.parametrize("optimizer", [pt.SGD(1), pt.LBFGS(tolerance=0)])
def test_a_request_to_stop(comm, optimizer):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == 9 and comm.rank == comm.size - 1

    rate = None if isinstance(optimizer, pt.LBFGS) else 0.1
    lanes = [Lane(rate, 0.01, 0), Lane(rate, 0.1)]
    found = run(comm, lanes, optimizer=optimizer, should_stop=should_stop, epochs=50)
    assert {r.status for r in found} == {"stopped"}
    assert len(asked) == 9
    assert np.isfinite(found[0].weights["weight"]).all()


@pytest.mark.parametrize("where", ["on_epoch", "should_stop", "batch"])
@pytest.mark.parametrize("how", [{}, {"virtual_shards": 5}])
def test_an_error_on_one_rank(comm, where, how):
    x, y, _, folds = rows_of("logistic", False, False)
    data, _ = data_set(x, y, None, False, comm)
    calls = []

    def fail(*args):
        calls.append(1)
        if comm.rank == 1 and len(calls) == 3:
            raise OSError("the disk is full")
        return None

    if where == "batch":
        batch = type(data).batch

        class Failing(type(data)):
            def batch(self, *args):
                fail()
                return batch(self, *args)

        data.__class__ = Failing
        how = {**how, "data": data}
    else:
        how = {**how, where: fail}
    expected = OSError if comm.rank == 1 else RemoteRankError
    with pytest.raises(expected, match="the disk is full"):
        run(comm, [Lane(0.1, 0.0, 0), Lane(0.2)], **how)
    assert comm.allreduce(1) == comm.size


@pytest.mark.parametrize(
    "lanes, how, error, text",
    [
        ([], {}, ConfigError, "at least one Lane"),
        ([Lane(None)], {}, ConfigError, "needs lanes with a learning_rate"),
        ([Lane(0.1)], {"optimizer": pt.LBFGS()}, ConfigError, "with no learning_rate"),
        ([Lane(0.1, 0.0, 7)], {}, DataError, "fold 7 has 0 of 103 rows"),
        ([Lane(0.1, 0.0, 0)], {"folds": None}, ConfigError, "folds of the rows are"),
        ([Lane(0.1)], {"folds": np.zeros(1)}, ConfigError, "an integer for each"),
        ([Lane(0.1)], {"backend": "cuda"}, ConfigError, "lanes run on CPUs"),
        ([Lane(0.1)], {"standardise": np.ones(2)}, ConfigError, "a bool for each"),
        ([Lane(0.1)], {"epochs": 0}, ConfigError, "epochs"),
        ([Lane(0.1)], {"virtual_shards": 1}, ConfigError, "virtual_shards"),
    ],
)
def test_bad_input(comm, lanes, how, error, text):
    with pytest.raises(error, match=text):
        run(comm, lanes, **how)
    assert comm.allreduce(1) == comm.size


def test_other_models_are_refused(comm):
    x, y, _, _ = rows_of("softmax", False, False)
    data, _ = data_set(x, y, None, False, comm)
    model = pt.MLP(6, [4], 3, dtype="float64")
    with pytest.raises(ConfigError, match="Linear, Logistic and Softmax"):
        train_lanes(model, pt.SGD(1), [Lane(0.1)], data, epochs=1, comm=comm)


def test_lanes_that_differ_between_ranks(comm):
    with pytest.raises(pt.errors.RankMismatchError, match="lanes differs"):
        run(comm, [Lane(0.1 + comm.rank)])


@pytest.mark.parametrize(
    "values", [(0.0,), (-1.0,), (np.inf,), (0.1, -1.0), (0.1, 0.0, -1), (0.1, 0.0, 1.5)]
)
def test_lanes_of_bad_values(values):
    with pytest.raises(ConfigError, match="of a lane must be"):
        Lane(*values)
