"""What reading a file of training rows gives: data sets, and how to read others."""

from dataclasses import dataclass, field
from typing import Any

from pympi_train.data.sources.dataset import Dataset


@dataclass(frozen=True)
class Schema:
    """What must be known to read new data as the training data were read.

    Parameters
    ----------
    task : "classification" or "regression"
    format : {"npz", "npy", "csv", "svm"}
        Of the training file.
    header : bool or None
        Whether a .csv has a header; None: unless it looks like a row.
    features, target : str, list of str or None
        As in the configuration.
    feature_names : list of str or None
        The columns used, in order, where the format names them.
    n_features : int
    zero_based : bool or None
        Whether indices of an .svm file start at 0.
    classes : ndarray, shape (c,), or None
        Sorted labels, int64 or str; None for regression.
    n_targets : int
        Columns of the target; 1 for classification.
    target_names : list of str or None
        Of a regression: what its ``n_targets`` targets are called.
    scaling, target_scaling : Scaling or None
        Of the features; of the targets of a regression.
    dtype : str
        Of the features given to the model.
    """

    task: str
    format: str
    header: Any
    features: Any
    target: Any
    feature_names: Any
    n_features: int
    zero_based: Any
    classes: Any
    n_targets: int
    target_names: Any
    scaling: Any
    target_scaling: Any
    dtype: str


@dataclass(frozen=True)
class Loaded:
    """The result of ``load``.

    Attributes
    ----------
    train : Dataset
    validation : Dataset or None
    schema : Schema
    class_counts : ndarray of int64, shape (c,), or None
        Training rows of each class of ``schema.classes``, on all ranks.
    remarks : list of str
        What may be wrong with the data, such as a column that counts the rows.
    """

    train: Dataset
    validation: Any
    schema: Schema
    class_counts: Any = None
    remarks: list = field(default_factory=list)
