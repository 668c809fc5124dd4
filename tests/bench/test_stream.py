import numpy as np
import pytest

from pympi_train.backends.select import present
from pympi_train.bench.stream import Triad


@pytest.mark.parametrize("backend", present())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_triad(backend, dtype):
    triad = Triad(70_001, np.dtype(dtype), backend)
    a, b, c = triad.arrays
    b[:], c[:] = np.arange(b.size), 2
    triad()
    assert np.array_equal(a, np.arange(a.size) + 1)
    assert triad.n_bytes == 3 * a.nbytes
