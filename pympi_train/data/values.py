"""Checks of the values in rows."""

import numpy as np

from pympi_train.errors import DataError

FINITE_BLOCK_BYTES = 1 << 20  # checked at once: stays in cache


def require_finite(values, place, first_row, optional=False):
    """Raise DataError at the first NaN or infinity of a (k, d) or (k,) array.

    If values are ``optional``, NaN stands for a missing one. Works on blocks of
    rows, which avoids a mask of the whole array.
    """
    if values.dtype.kind != "f" or values.size == 0:
        return
    values = values[:, None] if values.ndim == 1 else values
    step = max(1, FINITE_BLOCK_BYTES // (values.shape[1] * values.itemsize))
    for start in range(0, len(values), step):
        block = values[start : start + step]
        good = ~np.isinf(block) if optional else np.isfinite(block)
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise DataError(
                f"{place}, row {first_row + start + row}, column {column} (both from "
                f"0): expected a finite number, found {values[start + row, column]}"
            )
