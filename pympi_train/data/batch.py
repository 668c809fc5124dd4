"""A batch: some rows of a data set, as a model takes them."""

from typing import Any, NamedTuple, Optional

import numpy as np


class Batch(NamedTuple):
    """Some rows of a data set: this rank's share of a global batch.

    Attributes
    ----------
    x : ndarray or CSR, shape (k, d), the model's dtype
        Features; k may be 0. Sparse rows for a model with ``takes_sparse``.
    y : ndarray
        For classification among several classes: class indices, shape (k,), intp.
        For logistic regression: 0 or 1, shape (k,), the model's dtype.
        For regression: targets, shape (k, t), the model's dtype.
    weights : ndarray of shape (k,), the model's dtype, or None
        Weight of each sample, such as the weight of its class; None: all 1.
    rows : slice, ndarray of int, shape (k,), or None
        Row numbers in the whole data set, independent of the rank that has the row.
        None for rows that do not come from a data set.
    """

    x: Any
    y: np.ndarray
    weights: Optional[np.ndarray] = None
    rows: Any = None
