"""`load`: training data from files."""

import inspect
from dataclasses import replace
from functools import partial

from pympi_train.comm.checks import together
from pympi_train.comm.ranks import resolve
from pympi_train.comm.sums.tree import require_leaves
from pympi_train.data.formats.files import find_files
from pympi_train.data.loading import arguments
from pympi_train.data.loading.assemble import assemble, count_rows_of_folds, read_wanted
from pympi_train.data.loading.options import ALL_FOLDS, Options


def load(
    path,
    *,
    format=None,
    rows=None,
    target="y",
    features=None,
    weights=None,
    drop=None,
    categorical=None,
    ordinal=None,
    dates=None,
    missing="fail",
    missing_indicator=False,
    rare_categories=None,
    task="classification",
    validation=None,
    validation_features=None,
    validation_target=None,
    split="random",
    split_column=None,
    group=None,
    fold=None,
    standardize=False,
    standardize_target=None,
    clip=None,
    class_weights=None,
    oversample=None,
    dtype="float32",
    seed=0,
    header=None,
    n_features=None,
    zero_based=None,
    memory="auto",
    order="full",
    order_window=None,
    order_shards=None,
    sparse=False,
    virtual_shards=None,
    literal_paths=False,
    comm=None,
):
    """Read this rank's rows of one or more files and prepare them for training.

    Parameters
    ----------
    path : str, path, or list of them
        An .npz, .npy, .h5, .zarr, .csv, .tsv, .parquet or .svm file, text also with .gz
        or .zst after it; a URL; a pattern (``data/*.csv``), a folder, or a list:
        several files are one data set. ``~`` and ``$VAR`` in names are expanded.
    format : str, optional
        "csv", "parquet" or another suffix without its dot, if the names of the files do
        not end so.
    rows : str, optional
        Condition on columns: only rows for which it is true are used, see
        ``row_filter.RowFilter``. ``"age >= 18 and country in ('NO', 'SE')"``
    target : str or list of str
        Array or columns to predict; for .npy the target's files; not used for .svm.
    features : str or list of str, optional
        Arrays or columns to predict from; by default all that have no other use.
    weights : str, optional
        Array or column with the weight of each sample; for .npy the weights' files. It
        counts in gradients, losses and metrics, times that of ``class_weights``.
    drop : str or list of str, optional
        Arrays or columns that are no features.
    categorical, ordinal : str or list of str, optional
        Columns of text or numbers that name categories. A categorical column becomes a
        column of 0 and 1 for each category of the training rows; an ordinal one becomes
        0, 1, 2, ... in their order, integers by value, then text.
    dates : str or list of str, optional
        Columns of dates or times (ISO 8601; without a zone UTC), which become days
        since 1970.
    missing : {"fail", "mean", "median", "zero", "drop"}
        What is done about missing features: raise an error, fill in the mean or median
        of the column over the training rows, or 0, or leave the row out. Rows that lack
        target or weight are left out too, by "drop", and otherwise are errors. Among
        categories, a missing value is a category of its own.
    missing_indicator : bool
        Whether each column that lacks values in training rows gets one more column: 1
        where the value was missing.
    rare_categories : int, optional
        Categories of fewer training rows, and unknown ones later, share a category. By
        default an unknown category is an error.
    task : "classification" or "regression"
        Whether targets are labels (integers or strings) or numbers.
    validation : float, path or list of paths, optional
        Fraction of the rows to hold out, chosen by ``seed``; or other files.
    validation_features, validation_target : str or list of str, optional
        Names of features and target in the validation file, such as x_test, if they
        differ there. For an .npy ``validation`` file, the target's file.
    split : {"random", "stratified", "column"}
        How a fraction is chosen: among all rows, the same fraction of each class, or by
        ``split_column``.
    split_column : str, optional
        Column that says of each row: train, validation, or test (not used).
    group : str, optional
        Column whose rows of equal text must be all in the training or all in the
        validation rows: "patient".
    fold : int or "all", optional
        Which part of the rows is held out, for cross-validation: with ``validation``
        0.2, one of 0, 1, 2, 3, 4. With "all", all rows are training rows, and
        ``folds`` of the result has the part of each.
    standardize : bool
        Scale each feature to mean 0 and standard deviation 1 over the training rows.
    standardize_target : bool, optional
        Scale the targets of a regression in the same way; the default is the value of
        ``standardize``. ``schema.target_scaling.undo`` converts predictions back to
        their own units.
    clip : float, optional
        Limit standardised features to ``-clip ... clip``.
    class_weights : "balanced" or dict, optional
        A dict gives the weight of each label; omitted labels have weight 1. See
        ``classes.class_weights``.
    oversample : "balanced", optional
        Repeat training rows of rare classes, chosen by ``seed``, so that each class has
        the rows of the largest. Held-out rows are not repeated.
    dtype : "float32" or "float64"
    seed : int
    header : bool, optional
        Whether the first line of a .csv has the names of the columns. If False, the
        columns are called "0", "1" and so on. If None, there must be a header; a first
        line that looks like a row of numbers is an error.
    n_features : int, optional
        Columns of an .svm; by default up to the largest index in the file.
    zero_based : bool, optional
        Whether indices of an .svm start at 0; by default, whether a 0 appears.
    memory : {"auto", "in-memory", "mapped", "stream"}
        Where features are: in memory, or in their file until a batch needs them
        ("mapped"). "auto" maps features of more than 256 MB per rank, if the format
        allows it: .npy, or one array of an .npz that is not compressed. "stream", for
        Parquet, HDF5, Zarr, .csv and .tsv, decodes rows when they are needed, block by
        block, in each epoch; it needs the order "window".
    order : {"full", "window"}
        Order of the training rows in an epoch. "full" permutes rows over the whole data
        set. "window" permutes them only in windows of ``order_window`` successive rows
        of each of ``order_shards`` parts of the data set, for mapped files: reads are
        long, and the windows in work fit into memory. See `choose_windows`.
    order_window, order_shards : int, optional
        For order "window"; by default chosen by the number of rows and their bytes.
        ``order_shards`` is a power of two; at most so many ranks are busy.
    sparse : bool
        Whether rows of .svm files, and of .npz files with a CSR matrix, stay sparse,
        for a model that takes them. ``standardize`` then divides by the deviation
        without centring.
    virtual_shards : int, optional
        Number of groups of rows, for training in exact mode. Each row moves to the
        rank that owns its group. Means and standard deviations then have the same bits
        on any number of ranks.
    literal_paths : bool
        Whether ``~`` and ``$`` are ordinary characters: names were expanded before.
    comm : MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Returns
    -------
    Loaded

    Raises
    ------
    DataError
        On every rank, if a file is missing or malformed on any rank.
    ConfigError
        On every rank, if an argument is not allowed, or there are more ranks than
        ``virtual_shards``.

    Notes
    -----
    Collective.

    Mapped features are read once here, to check that all are finite, and again as
    batches need their rows. Scaling and casting give the same bits as in memory.
    """
    options = dict(locals())
    literal_paths, comm = options.pop("literal_paths"), resolve(options.pop("comm"))
    files, rows, options = _read_rows(options, literal_paths, comm)
    if options.virtual_shards is not None:
        require_leaves(options.virtual_shards, comm)
    return assemble(files, rows, options, comm)


def _read_rows(options, literal_paths, comm):
    """Return files, this rank's Rows and the checked Options. Collective."""
    with together(comm):
        options = Options(**options).checked(literal_paths)
    files = find_files(options.path, comm, options.format)
    with together(comm):
        arguments.require_fitting(files, **options.reading)
    return files, read_wanted(files, options, comm), options


def count_folds(path, n_folds, *, literal_paths=False, comm=None, **options):
    """Return how many rows of each class the folds of a cross-validation hold out.

    Parameters
    ----------
    path, literal_paths, comm, options
        As for `load`; ``validation`` and ``fold`` are not used.
    n_folds : int

    Returns
    -------
    ndarray, shape (n_folds, classes), int64
        With one column for a regression.
    ndarray or None
        The labels of the classes; None for a regression.
    str
        The data set, for messages.
    callable
        Returns the `Loaded` of all folds. Collective.

    Raises
    ------
    DataError, ConfigError
        On every rank, as `load` does.

    Notes
    -----
    Collective. Reads the rows once; only the callable keeps them.
    """
    comm = resolve(comm)
    options = {**_DEFAULTS, **options, "path": path, "fold": ALL_FOLDS}
    options["validation"] = 1 / n_folds
    files, rows, options = _read_rows(options, literal_paths, comm)
    finish = partial(assemble, files, replace(rows), options, comm)
    counted = count_rows_of_folds(rows, options, n_folds, files.name, comm)
    return *counted, files.name, finish


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(load).parameters.items()
    if name not in ("literal_paths", "comm")
}
