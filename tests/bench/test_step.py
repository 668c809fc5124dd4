import pytest

from pympi_train.bench import step
from pympi_train.errors import ConfigError

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
