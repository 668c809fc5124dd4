"""From files to data sets: read, hold out, encode, fit, scale."""

import os
from pathlib import Path

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data import classes as labels
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.read import read_rows
from pympi_train.data.formats.rows import as_names
from pympi_train.data.loading.again import read_again
from pympi_train.data.loading.finish import (
    data_set,
    encode_labels,
    moved_with,
    order_rows,
    placed,
    require_memory,
    require_row_weights,
)
from pympi_train.data.loading.fitting import (
    encode_categories,
    fit_encodings,
    fit_preparation,
    require_categories,
    require_usable,
    require_weighty_folds,
)
from pympi_train.data.loading.options import FILLING
from pympi_train.data.loading.schema import Loaded, Schema
from pympi_train.data.loading.split import number_folds, split_by_column, split_rows
from pympi_train.data.loading.suspects import coarse_targets, suspects
from pympi_train.data.loading.used import used_rows
from pympi_train.data.sources.oversample import oversampled
from pympi_train.data.standardise import fit_scaling


def read_wanted(files, options, comm):
    """Return this rank's Rows of the files, as the Options want them. Collective."""
    others = [name for name in (options.group, options.split_column) if name]
    # Moments need every digit of the file; otherwise save memory.
    is_exact = options.standardize or options.missing in FILLING
    return read_rows(
        files,
        comm,
        features=options.features,
        target=options.target,
        target_kind="label" if options.is_classification else "number",
        weights=options.weights,
        drop=as_names(options.drop),
        categories=as_names(options.categorical) + as_names(options.ordinal),
        dates=as_names(options.dates),
        others=list(dict.fromkeys(others)),
        filters=() if options.rows is None else options.rows.columns,
        # What a row lacks is an error only if the row is used.
        lacking=options.lacking if options.rows is None else "all",
        **options.reading,
        dtype="float64" if is_exact else options.dtype,
        is_streamed=options.memory == "stream",
        sparse=options.sparse,
    )


def assemble(files, rows, options, comm):
    """Return the Loaded of Rows as read. Collective."""
    name, remarks = files.name, [*rows.remarks]
    require_memory(rows, options, name, comm)
    train, held, classes, found = _chosen(rows, options, name, comm)
    folds = None
    if options.numbers_folds:
        folds = number_folds(rows, train, options, name, comm)[train]
    remarks += found
    encodings = fit_encodings(rows, train, options, comm)
    encode_categories(rows, encodings, train | held, name, comm)
    kept, held = placed(
        (rows, train),
        (rows, held),
        dtype=options.dtype,
        virtual_shards=options.virtual_shards,
        comm=comm,
        memory=options.memory,
    )
    if folds is not None:
        folds = moved_with(folds, kept, comm)
    schema, found = _fitted(files, kept, encodings, classes, options, comm)
    remarks += found
    train, found = _training_rows(kept, schema, options, name, comm)
    remarks += found
    other = None
    if options.holds_out:
        other = data_set(*held, schema, name, comm)
    elif options.validation is not None and folds is None:
        other = _validation_rows(schema, options, comm)
        remarks += other.remarks
    counts = None
    if classes is not None:
        counts = labels.count_rows(train.y, classes, comm)
        remarks += labels.remarks(counts, train.n)
    return Loaded(train, other, schema, counts, files, remarks, folds)


def count_rows_of_folds(rows, options, n_folds, name, comm):
    """Return the rows of each fold and class, and the classes. Collective.

    See `load.count_folds`.
    """
    there, _ = used_rows(rows, options, name, comm)
    classes = _encoded(rows, there, options, name, comm)
    folds = number_folds(rows, there, options, name, comm)
    if options.rare_categories is None:
        require_categories(rows, there, folds, n_folds, name, comm)
    if rows.weights is not None:
        require_weighty_folds(rows, there, folds, n_folds, name, comm)
    counts = np.zeros((n_folds, 1 if classes is None else len(classes)))
    y = np.zeros(len(there), dtype=np.intp) if classes is None else rows.y
    np.add.at(counts, (folds[there], y[there]), 1)
    return reduced(comm, counts).astype(np.int64), classes


def _encoded(rows, there, options, name, comm):
    """Make labels class indices; return the classes, None for a regression. Collective.
    """
    if not options.is_classification:
        return None
    classes = labels.find_classes(rows.y[there], comm)
    encode_labels(rows, classes, name, comm, there)
    return classes


def _chosen(rows, options, name, comm):
    """Return masks of training and held-out rows, classes and remarks. Collective.

    Labels become class indices.
    """
    there, remarks = used_rows(rows, options, name, comm)
    with together(comm):
        require_row_weights(rows, there, name)
    if options.split == "column":
        train, held = split_by_column(rows, there, options.split_column, name, comm)
        there = train | held
    classes = _encoded(rows, there, options, name, comm)
    if options.split != "column":
        train, held = split_rows(rows, there, options, name, comm)
    return train, held, classes, remarks + suspects(rows, comm)


def _fitted(files, kept, encodings, classes, options, comm):
    """Return the Schema, fitted over the training rows, and remarks. Collective.

    ``kept`` are rows and their mask, as `placed` returns them.
    """
    (rows, keep), name, remarks = kept, files.name, []
    target_names = None
    if not options.is_classification:
        target_names = _target_names(rows, files.format, options.target)
    names = rows.feature_names
    preparation, n_filled = fit_preparation(
        rows.x, keep, options, encodings, rows.dates, names, name, comm
    )
    if n_filled:
        remarks.append(f"{n_filled:,} missing values are filled ({options.missing})")
    target_scaling = None
    if options.standardize_target:
        target_scaling = fit_scaling(rows.y, keep, comm, options.virtual_shards)
        require_usable(target_scaling, "target", name, comm)
    elif not options.is_classification:
        remarks += coarse_targets(rows.y, keep, target_names, options.dtype, comm)
    schema = Schema(
        task=options.task,
        format=files.format,
        header=options.header,
        features=options.features,
        target=options.target,
        weights=options.weights,
        feature_names=None if names is None else list(names),
        n_features=preparation.n_features,
        zero_based=rows.zero_based,
        classes=classes,
        n_targets=1 if options.is_classification else rows.y.shape[1],
        target_names=target_names,
        preparation=preparation,
        target_scaling=target_scaling,
        dtype=options.dtype,
        columns=None if rows.columns is None else list(rows.columns),
    )
    return schema, remarks


def _training_rows(kept, schema, options, name, comm):
    """Return the data set of the training rows, and remarks. Collective."""
    remarks = []
    train = data_set(*kept, schema, name, comm, options.class_weights)
    if options.oversample is not None:
        n_rows = train.n
        train = oversampled(train, schema.classes, options.seed, comm)
        remarks.append(f"oversample: {n_rows:,} training rows are now {train.n:,}")
    return train, remarks + order_rows(train, options, comm)


def _validation_rows(schema, options, comm):
    """Return the data set of the files of validation rows. Collective."""
    return read_again(
        find_files(options.validation, comm, options.format),
        schema,
        comm,
        rows=options.rows,
        features=options.validation_features,
        target=options.validation_target,
        virtual_shards=options.virtual_shards,
        memory=options.memory,
        sparse=options.sparse,
    )


def _target_names(rows, format_, target):
    """Return the names of the targets; numbers if one array holds several targets."""
    names = [os.fspath(name) for name in as_names(target)]
    if len(names) == rows.y.shape[1]:
        return [Path(names[0]).stem] if format_ == "npy" else names
    return [str(i) for i in range(rows.y.shape[1])]
