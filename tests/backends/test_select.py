import importlib.util

import pytest

from pympi_train.backends import select
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.errors import ConfigError


@pytest.fixture
def without_numba(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "numba" else real(name, *rest),
    )


@pytest.fixture(params=[ImportError, ValueError])
def broken_numba(request, monkeypatch):
    """Numba is installed but cannot be imported."""
    real = select._ops

    def ops(name):
        if name == "numba":
            raise request.param("Numba needs NumPy 1.0 or less. Got NumPy 9.9.")
        return real(name)

    monkeypatch.setattr(select, "_ops", ops)
    monkeypatch.setattr(select, "is_installed", lambda: True)


def test_numpy():
    backend = select.select("numpy")
    assert (backend.name, backend.ops) == ("numpy", numpy_ops)
    assert backend.reason


def test_numba_where_it_is_installed():
    pytest.importorskip("numba")
    for name in ("auto", "numba"):
        backend = select.select(name)
        assert backend.name == "numba"
        assert backend.ops.__name__ == "pympi_train.backends.numba.ops"
    assert select.present() == ["numpy", "numba"]


def test_both_have_the_same_functions():
    pytest.importorskip("numba")
    names = {frozenset(select.select(name).ops.__all__) for name in select.NAMES}
    assert names == {frozenset(numpy_ops.__all__)}


def test_auto_without_numba(without_numba):
    backend = select.select("auto")
    assert (backend.name, backend.ops) == ("numpy", numpy_ops)
    assert "pip install" in backend.reason and "\n" not in backend.reason
    assert select.present() == ["numpy"]


def test_numba_without_numba(without_numba):
    with pytest.raises(ConfigError, match=r"pip install 'pympi-train\[fast\]'"):
        select.select("numba")


def test_auto_with_a_numba_that_does_not_fit(broken_numba):
    backend = select.select("auto")
    assert backend.ops is numpy_ops
    assert "Numba needs NumPy 1.0" in backend.reason
    with pytest.raises(ConfigError, match="Numba needs NumPy 1.0"):
        select.select("numba")


@pytest.mark.parametrize("name", ["cupy", "Numba", "", None])
def test_unknown(name):
    with pytest.raises(ConfigError, match="one of auto, numpy, numba, cuda; got"):
        select.select(name)
