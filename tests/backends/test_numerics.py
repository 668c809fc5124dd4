import numpy as np
from threadpoolctl import threadpool_limits

from pympi_train.backends.numerics import numerics


def test_names_the_builds_and_the_threads():
    with threadpool_limits(1, user_api="blas"):
        found = numerics()
    assert found["numpy"] == np.__version__
    assert "openblas" in found["blas"] and " 1 threads" in found["blas"]
    assert isinstance(found["simd"], str)
    with threadpool_limits(2, user_api="blas"):
        assert numerics()["blas"] != found["blas"]


def test_numba_is_named_where_it_is_loaded(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert numerics()["numba"] is None
