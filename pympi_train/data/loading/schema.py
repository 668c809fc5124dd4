"""The result of loading training data: data sets, and how to read other files."""

from dataclasses import dataclass, field
from typing import Any

from pympi_train.data.sources.dataset import Dataset


@dataclass(frozen=True)
class Schema:
    """The facts needed to read new data in the same way as the training data.

    Parameters
    ----------
    task : "classification" or "regression"
    format : str
        Format of the training file, a value of `formats.files.FORMATS`.
    header : bool or None
        Whether a .csv has a header; None: yes, unless the line looks like a row.
    features, target : str, list of str or None
        As in the configuration.
    weights : str, list of str or None
        The sample weights, as in the configuration.
    feature_names : list of str or None
        The columns used, in order, if the format names them.
    n_features : int
        Columns that the model takes.
    zero_based : bool or None
        Whether indices of an .svm file start at 0.
    classes : ndarray, shape (c,), or None
        Sorted labels, int64 or str; None for regression.
    n_targets : int
        Columns of the target; 1 for classification.
    target_names : list of str or None
        Names of the ``n_targets`` targets of a regression.
    preparation : Preparation
        From the columns of the file to those of the model.
    target_scaling : Scaling or None
        Scaling of the targets of a regression.
    dtype : str
        Dtype of the features that the model takes.
    columns : list of str or None
        All columns of a table, used or not.
    """

    task: str
    format: str
    header: Any
    features: Any
    target: Any
    weights: Any
    feature_names: Any
    n_features: int
    zero_based: Any
    classes: Any
    n_targets: int
    target_names: Any
    preparation: Any
    target_scaling: Any
    dtype: str
    columns: Any = None


@dataclass(frozen=True)
class TokenSchema:
    """The facts needed to read other token files as those of the training.

    Parameters
    ----------
    window : int
        Tokens of a row.
    token_dtype : str
        Of .bin files.
    n_tokens : int
        Size of the vocabulary: tokens are 0 to n_tokens - 1.
    dtype : str
        Dtype of the model.
    """

    window: int
    token_dtype: str
    n_tokens: int
    dtype: str

    task, format = "language", "tokens"
    classes = feature_names = None

    @property
    def n_features(self):
        """Return the tokens of a row."""
        return self.window


@dataclass(frozen=True)
class Loaded:
    """The result of ``load``.

    Attributes
    ----------
    train : Dataset
    validation : Dataset or None
    schema : Schema or TokenSchema
    class_counts : ndarray of int64, shape (c,), or None
        Training rows of each class of ``schema.classes``, on all ranks.
    files : Files
        Of the training rows.
    remarks : list of str
        Possible problems with the data, such as a column that counts the rows.
    folds : ndarray of int32, shape (len(train),), or None
        With ``fold="all"``, the fold of each of this rank's training rows.
    """

    train: Dataset
    validation: Any
    schema: Schema
    class_counts: Any = None
    files: Any = None
    remarks: list = field(default_factory=list)
    folds: Any = None
