import numpy as np
import pytest

from pympi_train.bench import step
from pympi_train.errors import ConfigError
from pympi_train.parallel import overlap, trials

LAYERS = {
    "linear": [5, 2],
    "logistic": [5, 1],
    "softmax": [5, 3],
    "mlp": [5, 4, 3],
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("model, layers", LAYERS.items())
def test_parts_are_of_the_mean_step(comm, model, layers):
    found = step.measure(comm, model=model, layers=layers, batch_size=7, steps=5)
    parts = [found[f"{phase}_s"] for phase in step.PHASES]
    assert min(parts) >= 0
    assert 0 < sum(parts) <= found["mean_step_s"]
    assert found["samples_per_s"] * found["median_step_s"] == pytest.approx(
        7 * comm.size
    )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["on", "auto"])
def test_overlap_is_chosen_before_steps_are_timed(comm, monkeypatch, how):
    monkeypatch.setattr(trials, "LEAST_BYTES", 64)
    monkeypatch.setattr(overlap, "MAX_COUNT", 16)
    found = step.measure(
        comm,
        model="mlp",
        layers=[5, 4, 3],
        batch_size=7,
        steps=5,
        parallel=["strategy=allreduce", f"overlap={how}"],
    )
    assert found["exchange"]["strategy"] == "allreduce"
    assert ("overlap_seconds" in found["exchange"]) == (how == "auto")
    assert found["communication_s"] > 0


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "setting, message",
    [
        ("overlap=maybe", "'auto', 'on', 'off'"),
        ("overlpa=on", "overlap"),
        ("strategy=server", "no steps"),
    ],
)
def test_refuses_settings(comm, setting, message):
    with pytest.raises(ConfigError, match=message):
        step.measure(
            comm, model="softmax", layers=[5, 3], batch_size=7, parallel=[setting]
        )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "model, layers, message",
    [
        ("mlp", [5], "expected features,hidden...,outputs, got"),
        ("softmax", [5, 4, 3], "expected features,outputs, got"),
        ("logistic", [5, 2], "expected one output, got 2"),
    ],
)
def test_refuses_layers(comm, model, layers, message):
    with pytest.raises(ConfigError, match=message):
        step.measure(comm, model=model, layers=layers, batch_size=7)


def test_steps_run_in_the_environment_that_fit_enters_once(comm):
    how = {"model": "logistic", "layers": [4, 1], "batch_size": 2}
    with step.random_training(comm, **how) as (_, take):
        take()
        assert np.geterr()["invalid"] == "ignore"
    assert np.geterr()["invalid"] == "warn"
