"""Fixtures of the backends, dtypes and threads."""

import importlib

import gpus
import numpy as np
import pytest

DTYPES = ("float32", "float64")


@pytest.fixture(params=["numpy", "numba", pytest.param("cuda", marks=pytest.mark.gpu)])
def ops(request):
    """Each backend. The GPU backend also takes NumPy arrays here, and copies them."""
    if request.param == "cuda":
        return gpus.HostFacade()
    return cpu_ops_of(request.param)


@pytest.fixture(params=["numpy", "numba"])
def cpu_ops(request):
    return cpu_ops_of(request.param)


def cpu_ops_of(name):
    if name == "numba":
        pytest.importorskip("numba")
    return importlib.import_module(f"pympi_train.backends.{name}.ops")


@pytest.fixture(params=DTYPES)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def crew_of(monkeypatch):
    """Return a function that gives the loops ``n`` threads until the test ends."""
    from pympi_train.backends import threads

    crews = []

    def set_size(n):
        crews.append(threads._Crew())
        crews[-1].resize(n)
        monkeypatch.setattr(threads, "_crew", crews[-1])

    yield set_size
    for crew in crews:
        crew.resize(1)
