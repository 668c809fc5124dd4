"""The keys of the section ``[data]`` of the configuration."""

from dataclasses import dataclass

from pympi_train.data.formats.token_files import TOKEN_DTYPES
from pympi_train.data.loading.options import (
    FORMAT_NAMES,
    MEMORY,
    MISSING,
    OVERSAMPLE,
    SPLITS,
)
from pympi_train.data.order_shards import MAX_SHARDS
from pympi_train.data.windows.choice import MAX_WINDOW_ROWS, ORDERS
from pympi_train.keys import MOST, key


@dataclass(frozen=True)
class DataConfig:
    """The section ``[data]``: files, targets and features."""

    train: str | list[str] = key(
        "training rows, relative to the configuration file: a file, a pattern "
        "(data/*.csv), a folder, a URL, or a list; several files are one data set"
    )
    format: str | None = key(
        "format of the files, if their names do not end as those of a format do; "
        "tokens: also for .npy files of tokens",
        None,
        choices=FORMAT_NAMES,
    )
    rows: str | None = key(
        "condition on columns; only rows for which it is true are used: age >= 18 and "
        "country in ('NO', 'SE')",
        None,
    )
    target: str | list[str] = key(
        "array (.npz, .h5, .zarr), column or columns (.csv), or other files (.npy) to "
        "predict; "
        "unused for .svm, whose rows begin with the target",
        "y",
    )
    features: str | list[str] | None = key(
        "array or arrays (.npz, .h5, .zarr), or list of columns (.csv); if omitted, "
        "all except the target and columns of other use",
        None,
    )
    weights: str | list[str] | None = key(
        "array (.npz, .h5, .zarr), column (.csv) or other files (.npy) with the weight "
        "of each sample, which counts in gradients, losses and metrics",
        None,
    )
    drop: str | list[str] | None = key("columns or arrays that are no features", None)
    categorical: str | list[str] | None = key(
        "features that name categories: each category of the training rows becomes a "
        "column of 0 and 1",
        None,
    )
    ordinal: str | list[str] | None = key(
        "features that name categories, which become 0, 1, 2, ... in their order: "
        "integers by value, then text",
        None,
    )
    dates: str | list[str] | None = key(
        "features with dates or times (ISO 8601, without a zone UTC), which become "
        "days since 1970",
        None,
    )
    missing: str = key(
        "missing features: an error, filled with the mean or median of the training "
        "rows or with 0, or the row is left out; among categories, a missing value is "
        "a category of its own; drop also leaves out rows without target or weight",
        "fail",
        choices=MISSING,
    )
    missing_indicator: bool = key(
        "add a column for each feature that lacks values in training rows: 1 where the "
        "value was missing",
        False,
    )
    rare_categories: int | None = key(
        "categories of fewer training rows, and unknown ones later, share a category; "
        "if omitted, an unknown category is an error",
        None,
        least=1,
        most=MOST,
    )
    validation: float | str | list[str] | None = key(
        "fraction of rows to hold out, chosen by seed (of token files the last ones), "
        "or files as for train; 0 or omitted: none",
        None,
        least=0,
        below=1,
    )
    validation_features: str | list[str] | None = key(
        "names of the features in the validation file, if they differ there: x_test",
        None,
    )
    validation_target: str | list[str] | None = key(
        "name of the target in the validation file, if it differs there: y_test; "
        "for an .npy validation file, the file of the target",
        None,
    )
    split: str | None = key(
        "how a fraction is held out: random, the same fraction of each class "
        "(stratified), or as split_column says (column); if omitted, random, but of "
        "token files the last windows",
        None,
        choices=SPLITS,
    )
    split_column: str | None = key(
        "split column: the column that says train, validation or test (not used) of "
        "each row",
        None,
    )
    group: str | None = key(
        "column whose rows of equal text stay together, all in training or all held "
        "out: patient_id",
        None,
    )
    fold: int | None = key(
        "which of the 1 / validation parts of the rows is held out, from 0: "
        "cross-validation",
        None,
        least=0,
        most=MOST,
    )
    oversample: str | None = key(
        "repeat training rows of rare classes, chosen by seed, so that each class has "
        "as many",
        None,
        choices=OVERSAMPLE,
    )
    window: int | None = key(
        "token files: tokens of a row; a row has as many targets, each the token after",
        None,
        least=1,
        most=2**31 - 1,
    )
    token_dtype: str = key(
        "token files .bin: type of a token, in this machine's byte order",
        "uint16",
        choices=TOKEN_DTYPES,
    )
    header: bool | None = key(
        "whether the first line of a .csv has the column names; false: columns are "
        'called "0", "1" and so on; if omitted, true, but a first line that looks like '
        "a row of numbers is an error",
        None,
    )
    n_features: int | None = key(
        "columns of an .svm; if omitted, up to the largest index in the file",
        None,
        least=1,
        most=2**31,
    )
    zero_based: bool | None = key(
        "whether indices of an .svm start at 0; if omitted, true if a 0 appears", None
    )
    sparse: bool | None = key(
        "whether rows of .svm files, and of .npz files with a CSR matrix, stay sparse; "
        "standardize then does not centre; if omitted, true for linear, logistic and "
        "softmax on CPUs unless missing values are filled",
        None,
    )
    standardize: bool = key(
        "scale each feature to mean 0 and standard deviation 1 over the training rows",
        False,
    )
    standardize_target: bool | None = key(
        "scale the targets of a regression in the same way; predictions and RMSE are "
        "still in the targets' own units, losses are not; if omitted, as standardize",
        None,
    )
    clip: float | None = key(
        "limit standardised features to -clip ... clip", None, above=0
    )
    memory: str = key(
        "where features are: in memory, or in their file until a batch needs them "
        "(mapped: .npy, or one array of an .npz that is not compressed; stream: "
        "Parquet, HDF5, Zarr, .csv, .tsv, decoded again in each epoch); auto: mapped "
        "if they take more than 256 MB per rank, if the format allows it",
        "auto",
        choices=MEMORY,
    )
    order: str = key(
        "order of the training rows in an epoch: permuted over the whole data set, or "
        "only within windows of successive rows (window), for mapped files",
        "full",
        choices=ORDERS,
    )
    order_window: int | None = key(
        "order window: rows of a window; if omitted, chosen by the number of rows and "
        "their bytes",
        None,
        least=1,
        most=MAX_WINDOW_ROWS,
    )
    order_shards: int | None = key(
        "order window: parts of the data set with a window in work each, a power of "
        "two; at most so many ranks are busy; if omitted, chosen by the number of rows "
        "and their bytes",
        None,
        least=1,
        most=MAX_SHARDS,
    )
