"""Backends by name, and arrays with every kind of number in them."""

import importlib

import numpy as np
import pytest

DTYPES = ("float32", "float64")


@pytest.fixture(params=["numpy", "numba"])
def ops(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return importlib.import_module(f"pympi_train.backends.{request.param}_ops")


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
