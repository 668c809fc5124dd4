"""The arrays of a data set: what is accepted, and checksums."""

import zlib

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.errors import DataError

CHECKED_ROWS = 1000  # number of rows in a checksum


def facts_of(array):
    """Return shape, dtype and checksum, which are equal for equal arrays."""
    if isinstance(array, CSR):
        return {
            "shape and dtype": (array.shape, str(array.dtype)),
            "sampled checksum": [facts_of(a) for a in (array.stops, array.values)],
        }
    array = np.asarray(array)
    step = max(1, len(array) // CHECKED_ROWS) if array.ndim else 1
    sample = np.ascontiguousarray(array[::step] if array.ndim else array)
    text = sample.tobytes() if array.dtype != object else repr(sample.tolist()).encode()
    return {
        "shape and dtype": (array.shape, str(array.dtype)),
        "sampled checksum": zlib.crc32(text),
    }


def require_arrays(x, y, weights):
    """Raise DataError unless these are arrays of numbers, or sparse or mapped rows."""
    for name, array in (("features", x), ("targets", y), ("weights", weights)):
        is_rows = isinstance(array, CSR) or hasattr(array, "moved")
        if is_rows or (array is None and name != "features"):
            continue
        if isinstance(array, np.ma.MaskedArray):
            raise DataError(f"{name} must not be masked; .filled() makes them plain")
        if isinstance(array, np.ndarray):
            _require_numbers(name, array)
            continue
        if hasattr(array, "tocsr"):
            raise DataError(
                f"{name} must be dense, got a sparse {type(array).__name__}: "
                "pt.SparseDataset takes sparse features"
            )
        raise DataError(
            f"{name} must be a NumPy array, got {type(array).__name__}: "
            "numpy.asarray() or .to_numpy() makes one"
        )


def _require_numbers(name, array):
    if array.dtype.kind not in "biuf":
        hint = "indices of classes, or numbers" if name == "targets" else "numbers"
        raise DataError(
            f"{name} must be {hint}, got dtype {array.dtype}; .astype(float) makes "
            "numbers of objects, numpy.unique(return_inverse=True) indices of labels"
        )


def require_same_length(x, y, weights):
    """Raise DataError unless the arrays have as many rows, in one or two dimensions."""
    if x.ndim != 2:
        raise DataError(f"features must have shape (rows, columns), got {x.shape}")
    for name, array, shapes, most in (
        ("targets", y, "(rows,) or (rows, targets)", 2),
        ("weights", weights, "(rows,)", 1),
    ):
        if array is None:
            continue
        if isinstance(array, np.ndarray) and not 1 <= array.ndim <= most:
            raise DataError(f"{name} must have shape {shapes}, got {array.shape}")
        if len(array) != len(x):
            raise DataError(f"{len(x)} rows of features but {len(array)} of {name}")


def require_weights(weights):
    """Return whether any weight is above 0; raise DataError at an invalid weight."""
    weights = np.asarray(weights)
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"weights must be finite and not negative, got {weights[row]} in row {row} "
            "of this rank (from 0)"
        )
    return bool(weights.any())


def is_mapped(array):
    """Return whether an array is a view of a file."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False
