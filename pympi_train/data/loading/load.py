"""Loading files as data sets: read, hold out, standardise, encode."""

import os
from pathlib import Path

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.ranks import resolve
from pympi_train.comm.sums.tree import require_leaves
from pympi_train.data import classes as labels
from pympi_train.data import order
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.read import read_rows, target_is_file
from pympi_train.data.formats.rows import as_names
from pympi_train.data.loading import arguments
from pympi_train.data.loading.again import read_again
from pympi_train.data.loading.finish import data_set, encode_labels, placed
from pympi_train.data.loading.schema import Loaded, Schema
from pympi_train.data.loading.suspects import coarse_targets, suspects
from pympi_train.data.standardise import fit_scaling
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import all_expanded


def load(
    path,
    *,
    target="y",
    features=None,
    task="classification",
    validation=None,
    validation_features=None,
    validation_target=None,
    standardize=False,
    standardize_target=None,
    class_weights=None,
    dtype="float32",
    seed=0,
    header=None,
    n_features=None,
    zero_based=None,
    virtual_shards=None,
    literal_paths=False,
    comm=None,
):
    """Read this rank's rows of one or more files and prepare them for training.

    Parameters
    ----------
    path : str, path, or list of them
        An .npz, .npy, .csv or .svm file; a pattern (``data/*.csv``), a folder, or a
        list: several files are one data set. ``~`` and ``$VAR`` in names are expanded.
    target : str or list of str
        Array or columns to predict; for .npy the target's files; not used for .svm.
    features : str or list of str, optional
        Arrays or columns to predict from; by default all except the target.
    task : "classification" or "regression"
        Whether targets are labels (integers or strings) or numbers.
    validation : float, path or list of paths, optional
        Fraction of the rows to hold out, chosen by ``seed``; or other files.
    validation_features, validation_target : str or list of str, optional
        Names of features and target in the validation file, such as x_test, if they
        differ there. For an .npy ``validation`` file, the target's file.
    standardize : bool
        Scale each feature to mean 0 and standard deviation 1 over the training rows.
    standardize_target : bool, optional
        Scale the targets of a regression in the same way; the default is the value of
        ``standardize``. ``schema.target_scaling.undo`` converts predictions back to
        their own units.
    class_weights : "balanced" or dict, optional
        A dict gives the weight of each label; omitted labels have weight 1. See
        ``classes.class_weights``.
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

    Features in .npy and uncompressed .npz files are mapped. If they take more than
    256 MB per rank they stay in the file. The file is then read once here, to check
    that all features are finite, and again as batches need its rows. Scaling and
    casting give the same bits in both cases.
    """
    comm = resolve(comm)
    with together(comm):
        validation = arguments.checked_validation(validation)
        arguments.require_choice("task", task, arguments.TASKS)
        arguments.require_names(
            features=features,
            target=target,
            validation_features=validation_features,
            validation_target=validation_target,
        )
        arguments.require_names(path=path)
        if path is None:
            raise ConfigError("path must be the name of a data file, got None")
        if validation is None or isinstance(validation, float):
            arguments.require_unset(
                "for a file of validation rows",
                validation_features=validation_features,
                validation_target=validation_target,
            )
        arguments.require_integer("seed", seed, 0, 2**63 - 1)
        if virtual_shards is not None:
            arguments.require_integer("virtual_shards", virtual_shards, 1, 2**31 - 1)
        arguments.require_bools(standardize=standardize)
        standardize_target = arguments.checked_standardize_target(
            standardize_target, standardize, task
        )
        reading = {"n_features": n_features, "zero_based": zero_based, "header": header}
        dtype = arguments.checked_dtype(dtype)
        labels.require_setting(class_weights, task)
        if not literal_paths:
            target = all_expanded(target) if target_is_file(path, target) else target
            if target_is_file(validation, validation_target):
                validation_target = all_expanded(validation_target)
            if validation is not None and not isinstance(validation, float):
                validation = all_expanded(validation)
            path = all_expanded(path)
    files = find_files(path, comm)
    with together(comm):
        arguments.require_fitting(files, **reading)
    if virtual_shards is not None:
        require_leaves(virtual_shards, comm)
    kind = "label" if task == "classification" else "number"
    name = files.name
    rows = read_rows(
        files,
        comm,
        features=features,
        target=target,
        target_kind=kind,
        **reading,
        # Moments need every digit of the file; otherwise save memory.
        dtype="float64" if standardize else dtype,
    )
    held = np.zeros(rows.stop - rows.start, dtype=bool)
    if isinstance(validation, float):
        count = order.held_out_count(rows.n, validation)
        held = order.held_out(rows.n, count, seed, rows.start, rows.stop)
    classes = labels.find_classes(rows.y, comm) if kind == "label" else None
    encode_labels(rows, classes, name, comm)
    remarks = suspects(rows, comm)
    how = {"dtype": dtype, "virtual_shards": virtual_shards, "comm": comm}
    kept, held = placed((rows, ~held), (rows, held), **how)
    target_names = None
    if kind == "number":
        target_names = _target_names(rows, files.format, target)
    scaling = None
    if standardize:
        scaling = _scaling("feature", kept[0].x, kept[1], name, comm, virtual_shards)
    target_scaling = None
    if standardize_target:
        of_rows = kept[0].y, kept[1]
        target_scaling = _scaling("target", *of_rows, name, comm, virtual_shards)
    elif kind == "number":
        remarks += coarse_targets(kept[0].y, kept[1], target_names, dtype, comm)
    schema = Schema(
        task=task,
        format=files.format,
        header=header,
        features=features,
        target=target,
        feature_names=None if rows.feature_names is None else list(rows.feature_names),
        n_features=rows.x.shape[1],
        zero_based=rows.zero_based,
        classes=classes,
        n_targets=1 if kind == "label" else rows.y.shape[1],
        target_names=target_names,
        scaling=scaling,
        target_scaling=target_scaling,
        dtype=dtype,
    )
    train = data_set(*kept, schema, name, comm, class_weights)
    other = None
    if isinstance(validation, float):
        other = data_set(*held, schema, name, comm)
    elif validation is not None:
        other = read_again(
            validation,
            schema,
            comm,
            features=validation_features,
            target=validation_target,
            virtual_shards=virtual_shards,
        )
    counts = None
    if classes is not None:
        counts = labels.count_rows(train.y, classes, comm)
        remarks += labels.remarks(counts, train.n)
    return Loaded(train, other, schema, counts, files, remarks)


def _target_names(rows, format_, target):
    """Return the names of the targets; numbers if one array holds several targets."""
    names = [os.fspath(name) for name in as_names(target)]
    if len(names) == rows.y.shape[1]:
        return [Path(names[0]).stem] if format_ == "npy" else names
    return [str(i) for i in range(rows.y.shape[1])]


def _scaling(what, x, keep, name, comm, virtual_shards):
    """Return the Scaling of the kept rows; raise if it is not finite. Collective."""
    scaling = fit_scaling(x, keep, comm, virtual_shards)
    with together(comm):
        finite = np.isfinite(scaling.scale)
        if not finite.all():
            raise DataError(
                f"{name}: {what} {np.argmin(finite)} (from 0) is too large to be "
                "standardised: its square is not finite; divide it by its size first"
            )
    return scaling
