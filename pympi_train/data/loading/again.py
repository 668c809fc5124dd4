"""Reading files that must match the training data."""

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import NAMELESS, Files, find_files
from pympi_train.data.formats.read import read_rows, why_not_streamed
from pympi_train.data.formats.rows import listed
from pympi_train.data.loading import arguments
from pympi_train.data.loading.finish import (
    data_set,
    encode_labels,
    placed,
    require_row_weights,
)
from pympi_train.data.loading.fitting import encode_categories
from pympi_train.data.loading.row_filter import RowFilter
from pympi_train.data.loading.used import (
    absent_rows,
    filtered_rows,
    require_present,
)
from pympi_train.errors import DataError


def read_again(
    path,
    schema,
    comm,
    *,
    features=None,
    target=None,
    weights=None,
    need_weights=True,
    header=None,
    zero_based=None,
    need_target=True,
    format_=None,
    rows=None,
    virtual_shards=None,
    memory="auto",
    sparse=False,
):
    """Read validation, evaluation or prediction files that must match ``schema``.

    The file may have any format. Features are found by their names in training. A
    file of another format may lack all of these names; its features are then matched
    by number and order.

    Parameters
    ----------
    path : Files, str, path, or sequence of them
    schema : Schema
    comm : MPI.Comm
    features, target : str or list of str, optional
        Their names in this file, if these differ from training.
    weights : str, optional
        Name of the weights in this file, if it differs from training.
    need_weights : bool
        False: all rows count alike, even if the model was trained with weights.
    header, zero_based : bool, optional
        As for `load`. By default as in training, if the training file had the same
        format.
    need_target : bool
    format_ : str, optional
        Format of the files, if their names do not say it.
    rows : str or RowFilter, optional
        The rows that are used, see `RowFilter`; by default all.
    virtual_shards : int, optional
    memory : str
        As for `load`; files of a format that cannot be mapped are read into memory.
    sparse : bool
        Whether sparse rows stay sparse, if the preparation of the training allows it.

    Returns
    -------
    Dataset
        ``y`` is None if the target is not needed: for prediction, labels may be absent
        or unknown.

    Notes
    -----
    Collective.
    """
    files = path if isinstance(path, Files) else find_files(path, comm, format_)
    prepared = schema.preparation
    with together(comm):
        row_filter = RowFilter(rows) if isinstance(rows, str) else rows
        is_alike = files.format == schema.format
        arguments.require_fitting(files, header=header, zero_based=zero_based)
        if target is None:
            target = _same_target(files, schema, need_target)
        if weights is None:
            weights = _same_weights(files, schema, need_target and need_weights)
    names = features
    if names is None and files.format not in NAMELESS:
        names = schema.feature_names or schema.features
    if is_alike:
        header = schema.header if header is None else header
        zero_based = schema.zero_based if zero_based is None else zero_based
    has_names, had_names = header is not False, schema.header is not False
    classes = schema.classes
    drops = prepared.missing == "drop" and need_target
    lacking = "all" if drops else "none" if prepared.fill is None else "features"
    rows = read_rows(
        files,
        comm,
        features=names,
        target=target,
        target_kind="label" if schema.task == "classification" else "number",
        need_target=need_target,
        weights=weights,
        need_weights=need_target and need_weights,
        categories=[encoding.place for encoding in prepared.encodings],
        dates=[place for place, _ in prepared.dates],
        filters=() if row_filter is None else row_filter.columns,
        lacking=lacking if row_filter is None else "all",
        header=header,
        any_names=features is None and not (is_alike and has_names == had_names),
        n_features=prepared.n_columns,
        zero_based=zero_based,
        text_labels=None if classes is None else classes.dtype.kind == "U",
        dtype=schema.dtype if prepared.is_plain else "float64",
        is_streamed=memory == "stream" and why_not_streamed(files) is None,
        sparse=sparse and prepared.keeps_zeros,
    )
    with together(comm):
        _require_fit(rows, schema, files.name)
    used = _used_rows(rows, row_filter, lacking, files.name, comm)
    encode_labels(rows, classes, files.name, comm, used)
    encode_categories(rows, prepared.encodings, used, files.name, comm)
    how = {"dtype": schema.dtype, "virtual_shards": virtual_shards, "comm": comm}
    (whole,) = placed((rows, used), **how, memory=memory)
    dataset = data_set(*whole, schema, files.name, comm)
    dataset.remarks = (*rows.remarks, *_new_columns(rows, schema, files.name))
    return dataset


def _used_rows(rows, row_filter, lacking, name, comm):
    """Return the mask of the rows that count; those that lack values are checked.

    ``lacking`` is that of the `Selection` if there were no condition. Collective.
    """
    used = filtered_rows(rows, row_filter, name, comm)
    with together(comm):
        if lacking == "all":
            used &= ~absent_rows(rows)
        elif row_filter is not None:
            require_present(rows, used, lacking == "features", name)
        require_row_weights(rows, used, name)
    return used


def _new_columns(rows, schema, name):
    """Return a remark if a table has columns that the training rows lacked."""
    if rows.columns is None or schema.columns is None:
        return []
    new = [column for column in rows.columns if column not in schema.columns]
    found = set(schema.columns) & set(rows.columns)
    if not new or not found:  # a file of columns by number has no new ones
        return []
    return [f"{name}: columns that the training rows did not have: {listed(new)}"]


def _same_weights(files, schema, are_needed):
    """Return the name of the weights in the training data, or None."""
    if schema.weights is None or not are_needed:
        return schema.weights if files.format not in NAMELESS else None
    if "npy" in (files.format, schema.format):
        raise DataError(
            f"{files.name}: which {'file' if files.format == 'npy' else 'name'} holds "
            "the weights of its rows? Say --weights NAME, or --no-weights to count all "
            "rows alike"
        )
    return schema.weights


def _same_target(files, schema, need_target):
    """Return the target's name in the training data, or None if there is none."""
    found = files.format
    if found == "npy" or (schema.format == "npy" and found != "svm"):
        if need_target:
            what = "FILE" if found == "npy" else "NAME"
            raise DataError(
                f"{files.name}: which {what.lower()} holds its targets? Say --target "
                f"{what} (validation_target in [data])"
            )
        return None
    return schema.target


def _require_fit(rows, schema, path):
    n_columns = schema.preparation.n_columns
    if rows.x.shape[1] != n_columns:
        chosen = "" if rows.feature_names is None else (
            f" ({listed(rows.feature_names)}); --features chooses others"
        )
        raise DataError(
            f"{path}: {rows.x.shape[1]} features, but the model was trained on "
            f"{n_columns}{chosen}"
        )
    for found, encoding in zip(rows.categories, schema.preparation.encodings):
        if found.column != encoding.column:
            raise DataError(
                f"{path}: the arrays of the features are of other widths than those of "
                "the training"
            )
    if schema.task == "classification" or rows.y is None:
        return
    if rows.y.shape[1] != schema.n_targets:
        raise DataError(
            f"{path}: {rows.y.shape[1]} targets, but the model was trained on "
            f"{schema.n_targets}"
        )
