import numpy as np
import pytest

from pympi_train.layers import checks


@pytest.mark.parametrize("value", [1, np.int32(1), np.uint8(1)])
def test_count_takes_whole_numbers(value):
    assert checks.count("n", value) == 1
    assert type(checks.count("n", value)) is int


@pytest.mark.parametrize("value", [0, -3, 1.0, "1", None, True])
def test_count_refuses(value):
    with pytest.raises(ValueError, match=f"n: expected an integer >= 1, got {value!r}"):
        checks.count("n", value)


@pytest.mark.parametrize("value", ["float32", np.float32, np.dtype("f4")])
def test_float_dtype(value):
    assert checks.float_dtype(value) == np.float32


@pytest.mark.parametrize("value", ["float16", "int64", "no such type", complex])
def test_float_dtype_refuses(value):
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64'"):
        checks.float_dtype(value)
