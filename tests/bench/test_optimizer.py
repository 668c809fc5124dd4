import pytest

from pympi_train.backends.select import present
from pympi_train.bench import optimizer
from pympi_train.errors import ConfigError


@pytest.mark.parametrize("name, elements", [("gd", 3), ("sgd", 5), ("adam", 7)])
@pytest.mark.parametrize("dtype, bytes_each", [("float32", 4), ("float64", 8)])
def test_counts_what_moves(name, elements, dtype, bytes_each):
    found = optimizer.measure(name, 1001, dtype, repeats=3)
    assert found["bytes"] == 1001 * elements * bytes_each
    assert list(found["backends"]) == present()
    for backend in found["backends"].values():
        assert set(backend) == {"median_s", "bytes_per_s", "stream_bytes_per_s"}
        rate = backend["bytes_per_s"] * backend["median_s"]
        assert rate == pytest.approx(found["bytes"])
        assert backend["stream_bytes_per_s"] > 0
    assert len({b["stream_bytes_per_s"] for b in found["backends"].values()}) == 1


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_runs(name):
    assert optimizer.measure(name, 1, repeats=1)["optimizer"] == name


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("lbfgs", 10), "one of gd, sgd, adam, adamw; got 'lbfgs'"),
        (("adam", 0), "size must be at least 1, got 0"),
        (("adam", 10, "float16"), "dtype must be one of float32, float64"),
        (("adam", 10, "float32", 0), "repeats must be at least 1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        optimizer.measure(*arguments)
