"""From files to data sets: read, hold out, standardise, encode."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.ranks import resolve
from pympi_train.comm.sums.tree import require_leaves
from pympi_train.data import arguments
from pympi_train.data import classes as labels
from pympi_train.data import order
from pympi_train.data.formats.read import format_of, read_rows
from pympi_train.data.formats.rows import as_names, listed
from pympi_train.data.groups import regrouped_rows
from pympi_train.data.schema import Loaded, Schema
from pympi_train.data.sources.base import Units
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.data.standardise import fit_scaling, row_chunks
from pympi_train.data.suspects import suspects
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import expanded

RESIDENT_BYTES = 2**28  # of a rank's features: more of them stay mapped


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
    """Read this rank's rows of a file and make them ready for training.

    Parameters
    ----------
    path : str or path
        An .npz, .npy, .csv or .svm file; ``~`` and ``$VAR`` in names are replaced.
    target : str or list of str
        Array or columns to predict; for .npy the second file; not used for .svm.
    features : str or list of str, optional
        Arrays or columns to predict from; all but the target by default.
    task : "classification" or "regression"
        Whether targets are labels (integers or strings) or numbers.
    validation : float or path, optional
        Fraction of the rows held out, chosen by ``seed``; or a second file.
    validation_features, validation_target : str or list of str, optional
        Features and target where they have other names in that file, such as x_test;
        the target's file where ``validation`` is an .npy file.
    standardize : bool
        Scale each feature to mean 0 and deviation 1 over the training rows.
    standardize_target : bool, optional
        Scale the targets of a regression so as well; by default what ``standardize``
        is. ``schema.target_scaling.undo`` takes predictions back to their own units.
    class_weights : "balanced" or dict, optional
        A dict gives the weight of each label, 1 where left out; see
        ``classes.class_weights``.
    dtype : "float32" or "float64"
    seed : int
    header : bool, optional
        Whether the first line of a .csv has the names of the columns; without, they
        are called "0", "1" and so on. By default it has, and a line that looks like a
        row of numbers is an error.
    n_features : int, optional
        Columns of an .svm; up to the largest index in the file by default.
    zero_based : bool, optional
        Whether indices of an .svm start at 0; by default if one is 0.
    virtual_shards : int, optional
        For training in exact mode: rows go to the ranks that own their groups, so many
        in all, and means and deviations have the same bits on any number of ranks.
    literal_paths : bool
        Whether ``~`` and ``$`` stand for themselves: names were expanded before.
    comm : MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Returns
    -------
    Loaded

    Raises
    ------
    DataError
        On every rank, for a file that is missing or malformed on any.
    ConfigError
        On every rank, if an argument is not what it can be, or there are more ranks
        than ``virtual_shards``.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.

    Features in .npy and uncompressed .npz files are mapped. Where they take more than
    256 MB on a rank they stay in the file: it is read once here, to see that all are
    finite, and then as batches need its rows, scaled and cast with the same bits.
    """
    comm = resolve(comm)
    with together(comm):
        validation = arguments.checked_validation(validation)
        arguments.require_choice("task", task, arguments.TASKS)
        arguments.require_bools(standardize=standardize)
        if standardize_target is None:
            standardize_target = standardize and task == "regression"
        arguments.require_bools(standardize_target=standardize_target)
        if standardize_target and task != "regression":
            raise ConfigError("standardize_target is for regression")
        arguments.require_names(features=features, target=target)
        arguments.require_names(
            validation_features=validation_features, validation_target=validation_target
        )
        reading = {"n_features": n_features, "zero_based": zero_based, "header": header}
        arguments.require_fitting(path, **reading)
        dtype = arguments.checked_dtype(dtype)
        labels.require_setting(class_weights, task)
        if not literal_paths:
            path, target = expanded(path), _expanded_target(path, target)
            validation_target = _expanded_target(validation, validation_target)
            if isinstance(validation, (str, os.PathLike)):
                validation = expanded(validation)
    if virtual_shards is not None:
        require_leaves(virtual_shards, comm)
    kind = "label" if task == "classification" else "number"
    rows = read_rows(
        path,
        comm,
        features=features,
        target=target,
        target_kind=kind,
        **reading,
        # Moments want every digit of the file; otherwise memory counts.
        dtype="float64" if standardize else dtype,
    )
    held = np.zeros(rows.stop - rows.start, dtype=bool)
    if isinstance(validation, float):
        count = order.held_out_count(rows.n, validation)
        held = order.held_out(rows.n, count, seed, rows.start, rows.stop)
    classes = labels.find_classes(rows.y, comm) if kind == "label" else None
    _encode(rows, classes, path, comm)
    remarks = suspects(rows, comm)
    how = {"dtype": dtype, "virtual_shards": virtual_shards, "comm": comm}
    kept, held = _placed((rows, ~held), (rows, held), **how)
    scaling = None
    if standardize:
        scaling = _scaling("feature", kept[0].x, kept[1], path, comm, virtual_shards)
    target_scaling = None
    if standardize_target:
        of_rows = kept[0].y, kept[1]
        target_scaling = _scaling("target", *of_rows, path, comm, virtual_shards)
    schema = Schema(
        task=task,
        format=format_of(path),
        header=header,
        features=features,
        target=target,
        feature_names=None if rows.feature_names is None else list(rows.feature_names),
        n_features=rows.x.shape[1],
        zero_based=rows.zero_based,
        classes=classes,
        n_targets=1 if kind == "label" else rows.y.shape[1],
        target_names=None if kind == "label" else _target_names(rows, target),
        scaling=scaling,
        target_scaling=target_scaling,
        dtype=dtype,
    )
    train = _dataset(*kept, schema, path, comm, class_weights)
    other = None
    if isinstance(validation, float):
        other = _dataset(*held, schema, path, comm)
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
    return Loaded(train, other, schema, counts, remarks)


def _placed(*parts, dtype, virtual_shards, comm):
    """Parts, (rows, which are kept), with rows where their groups are. Collective.

    Where they are if there is no ``virtual_shards``. Large features stay in their file.
    """
    if _stays(parts[0][0], dtype, comm):
        parts = [_in_file(*part) for part in parts]
    if virtual_shards is None:
        return parts
    parts = [regrouped_rows(*part, virtual_shards, comm) for part in parts]
    return [(rows, np.ones(len(rows.x), dtype=bool)) for rows in parts]


def _stays(rows, dtype, comm):
    """Whether features stay in their file: the same on every rank."""
    row_bytes = rows.x.shape[1] * np.dtype(dtype).itemsize
    return rows.reach is not None and rows.n * row_bytes > RESIDENT_BYTES * comm.size


def _in_file(rows, keep):
    """Rows of which all are kept, their features in the file, and that all are."""
    how = {"reach": rows.reach, "first": rows.start}
    x = MappedRows(rows.x, keep, None, rows.x.dtype, **how)
    y = rows.y if rows.y is None or keep.all() else rows.y[keep]
    return replace(rows, x=x, y=y), np.ones(len(x), dtype=bool)


def _expanded_target(path, target):
    """The target, which is a file where that of the features is .npy."""
    is_file = str(path).endswith(".npy") and isinstance(target, (str, os.PathLike))
    return expanded(target) if is_file else target


def _target_names(rows, target):
    """What the targets are called: numbers where one array has several."""
    names = [os.fspath(name) for name in as_names(target)]
    if len(names) == rows.y.shape[1]:
        is_file = names[0].endswith(".npy")
        return [Path(names[0]).stem] if is_file else names
    return [str(i) for i in range(rows.y.shape[1])]


def _scaling(what, x, keep, path, comm, virtual_shards):
    """The Scaling of the kept rows, if it exists. Collective."""
    scaling = fit_scaling(x, keep, comm, virtual_shards)
    with together(comm):
        finite = np.isfinite(scaling.scale)
        if not finite.all():
            raise DataError(
                f"{path}: {what} {np.argmin(finite)} (from 0) is too large to be "
                "standardised: its square is not finite; divide it by its size first"
            )
    return scaling


def read_again(
    path,
    schema,
    comm,
    *,
    features=None,
    target=None,
    header=None,
    zero_based=None,
    need_target=True,
    virtual_shards=None,
):
    """Read a file that has to fit ``schema``: validation, evaluation, prediction.

    In any format. Features are found by the names that they had in training; in a
    file that has none of these, and is of another format, by their number and order.

    Parameters
    ----------
    path : str or path
    schema : Schema
    comm : MPI.Comm
    features, target : str or list of str, optional
        Where they have other names than in training.
    header, zero_based : bool, optional
        As for `load`; as in training by default, if that file was of the same format.
    need_target : bool
    virtual_shards : int, optional

    Returns
    -------
    Dataset
        With ``y`` None where the target is not needed: to predict, labels may be
        absent, or unknown.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    with together(comm):
        is_alike = format_of(path) == schema.format
        arguments.require_fitting(path, header=header, zero_based=zero_based)
        if target is None:
            target = _same_target(path, schema, need_target)
    names = features
    if names is None and format_of(path) in ("csv", "npz"):
        names = schema.feature_names or schema.features
    if is_alike:
        header = schema.header if header is None else header
        zero_based = schema.zero_based if zero_based is None else zero_based
    has_names, had_names = header is not False, schema.header is not False
    classes = schema.classes
    rows = read_rows(
        path,
        comm,
        features=names,
        target=target,
        target_kind="label" if schema.task == "classification" else "number",
        need_target=need_target,
        header=header,
        any_names=features is None and not (is_alike and has_names == had_names),
        n_features=schema.n_features,
        zero_based=zero_based,
        text_labels=None if classes is None else classes.dtype.kind == "U",
        dtype=schema.dtype if schema.scaling is None else "float64",
    )
    with together(comm):
        _require_fit(rows, schema, path)
    _encode(rows, classes, path, comm)
    whole = rows, np.ones(len(rows.x), dtype=bool)
    how = {"dtype": schema.dtype, "virtual_shards": virtual_shards, "comm": comm}
    (whole,) = _placed(whole, **how)
    return _dataset(*whole, schema, path, comm)


def _same_target(path, schema, need_target):
    """The name of the target in the training data, which other files may have too."""
    found = format_of(path)
    if found == "npy" or (schema.format == "npy" and found != "svm"):
        if need_target:
            what = "FILE" if found == "npy" else "NAME"
            raise DataError(
                f"{path}: which {what.lower()} holds its targets? Say --target {what} "
                "(validation_target in [data])"
            )
        return None
    return schema.target


def _require_fit(rows, schema, path):
    if rows.x.shape[1] != schema.n_features:
        chosen = "" if rows.feature_names is None else (
            f" ({listed(rows.feature_names)}); --features chooses others"
        )
        raise DataError(
            f"{path}: {rows.x.shape[1]} features, but the model was trained on "
            f"{schema.n_features}{chosen}"
        )
    if schema.task == "classification" or rows.y is None:
        return
    if rows.y.shape[1] != schema.n_targets:
        raise DataError(
            f"{path}: {rows.y.shape[1]} targets, but the model was trained on "
            f"{schema.n_targets}"
        )


def _encode(rows, classes, path, comm):
    """Put class indices in place of the labels of ``rows``, if there are. Collective.

    Before rows move between ranks: row numbers are those of the file then.
    """
    with together(comm):
        if classes is not None and rows.y is not None:
            rows.y = labels.encode(rows.y, classes, path, rows.start)


def _dataset(rows, keep, schema, path, comm, class_weights=None):
    """The kept rows, as the model takes them. Collective."""
    with together(comm):
        x = _features(rows.x, keep, schema, path)
        y = rows.y
        if y is not None:
            y = y[keep]
            if schema.target_scaling is not None:
                y = schema.target_scaling.apply(y)
            if schema.classes is None:
                y = y.astype(schema.dtype)
    weights = None
    if class_weights is not None:
        of_class = labels.class_weights(class_weights, y, schema.classes, comm)
        with together(comm):
            weights = _cast_weights(of_class, schema)[y]
    kind = MappedDataset if isinstance(x, MappedRows) else Dataset
    dataset = kind(x, y, weights=weights, comm=comm)
    if schema.target_names is not None:
        scaling = schema.target_scaling
        scale = None if scaling is None else scaling.scale
        dataset.units = Units(tuple(schema.target_names), scale)
    return dataset


def _cast_weights(of_class, schema):
    with np.errstate(over="ignore"):
        weights = of_class.astype(schema.dtype)
    if not np.isfinite(weights).all():
        raise ConfigError(
            f"class_weights: {of_class.max()} is too large for {schema.dtype}"
        )
    return weights


def _features(x, keep, schema, path):
    """The kept rows of ``x``, scaled and cast: in memory, or in their file if there."""
    stays = isinstance(x, MappedRows)
    if stays:
        rows = x.scaled(schema.scaling, schema.dtype)
    else:  # in chunks as well, so that no copy of all is made in between
        rows = MappedRows(x, keep, schema.scaling, schema.dtype)
    out = rows if stays else np.empty(rows.shape, rows.dtype)
    for chunk in row_chunks(rows):
        part = rows[chunk]
        if not np.isfinite(part).all():
            raise DataError(f"{path}: {_why_not_finite(schema)}")
        if not stays:
            out[chunk] = part
    return out


def _why_not_finite(schema):
    tips = ['[model] dtype = "float64"'] if schema.dtype == "float32" else []
    tips += ["[data] standardize = true"] if schema.scaling is None else []
    return f"a feature is not finite, or too large for {schema.dtype}" + (
        f"; try {' or '.join(tips)}" if tips else ""
    )
