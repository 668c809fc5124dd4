"""Checks of the values in rows."""

import numpy as np

from pympi_train.errors import DataError

FINITE_BLOCK_BYTES = 1 << 20  # checked at once: stays in cache


def require_finite(values, place, first_row):
    """Raise DataError at the first NaN or infinity of a (k, d) or (k,) array.

    Works on blocks of rows, which avoids a mask of the whole array.
    """
    if values.dtype.kind != "f" or values.size == 0:
        return
    values = values[:, None] if values.ndim == 1 else values
    step = max(1, FINITE_BLOCK_BYTES // (values.shape[1] * values.itemsize))
    for start in range(0, len(values), step):
        good = np.isfinite(values[start : start + step])
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise DataError(
                f"{place}, row {first_row + start + row}, column {column} (both from "
                f"0): expected a finite number, found {values[start + row, column]}"
            )
