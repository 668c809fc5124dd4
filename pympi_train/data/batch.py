"""Some rows of a data set, as a model takes them."""

from typing import Any, NamedTuple, Optional

import numpy as np


class Batch(NamedTuple):
    """Some rows of a data set: this rank's share of a global batch.

    Attributes
    ----------
    x : ndarray, shape (k, d), the model's dtype
        Features; k may be 0.
    y : ndarray
        Class indices, shape (k,), intp, for classification among several classes; 0
        or 1, shape (k,), the model's dtype, for logistic regression; targets, shape
        (k, t), the model's dtype, for regression.
    weights : ndarray of shape (k,), the model's dtype, or None
        Weight of each sample, such as that of its class; None: all 1.
    rows : slice, ndarray of int, shape (k,), or None
        Their numbers in the whole data set, the same wherever a row lies; None for rows
        that come from elsewhere.
    """

    x: np.ndarray
    y: np.ndarray
    weights: Optional[np.ndarray] = None
    rows: Any = None
