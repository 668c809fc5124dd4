"""Every kernel runs on a GPU, or else on the CPU in both orders of its threads."""

import emulator
import gpus
import kernel_runs
import numpy as np
import pytest

ON_CPU = ("forward", "reverse")  # the orders of threads and blocks


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
    """Return ``place(values, shift=0)``, which makes arrays for kernels."""
    return arrays.place


@pytest.fixture
def run(arrays, way):
    """Return ``run(file, kernel, *args, grid=3)``."""
    if way == "device":
        return kernel_runs.OnDevice(arrays)
    if emulator.missing():
        pytest.skip(emulator.missing())
    return kernel_runs.Emulated(arrays, reverse=way == "reverse")


@pytest.fixture(params=[pytest.param("both", marks=pytest.mark.gpu)])
def orders(arrays):
    """Return ``run`` for both orders of threads, or twice for a GPU."""
    if gpus.PRESENT:
        return [kernel_runs.OnDevice(arrays)] * 2
    if emulator.missing():
        pytest.skip(emulator.missing())
    return [kernel_runs.Emulated(arrays, reverse) for reverse in (False, True)]


@pytest.fixture(params=kernel_runs.KINDS)
def kind(request):
    return kernel_runs.Kind(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(11)
