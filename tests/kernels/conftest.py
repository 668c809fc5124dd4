"""Every kernel in both orders of its threads, and on a GPU where there is one."""

import emulator
import gpus
import kernel_runs
import numpy as np
import pytest

ON_CPU = ("forward", "reverse")  # the orders of threads and blocks


def pytest_collection_modifyitems(config, items):
    """Drop the second order for types whose kernels differ by conversions alone."""
    dropped = [item for item in items if _is_repeated(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not _is_repeated(item)]


def _is_repeated(item):
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get("way") == "reverse" and params.get("kind") in ("f16", "bf16")


def pytest_generate_tests(metafunc):
    if "run" in metafunc.fixturenames:
        ways = ("device",) if gpus.PRESENT else ON_CPU
        metafunc.parametrize(
            "way", [pytest.param(w, marks=pytest.mark.gpu) for w in ways]
        )


@pytest.fixture
def arrays():
    return kernel_runs.Arrays()


@pytest.fixture
def place(arrays):
    """Return ``place(values, shift=0)``: arrays that kernels may be given."""
    return arrays.place


@pytest.fixture
def run(arrays, way):
    """Return ``run(file, kernel, *args, grid=3)``."""
    if way == "device":
        return kernel_runs.OnDevice(arrays)
    if emulator.missing():
        pytest.skip(emulator.missing())
    return kernel_runs.Emulated(arrays, reverse=way == "reverse")


@pytest.fixture(params=kernel_runs.KINDS)
def kind(request):
    return kernel_runs.Kind(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(11)
