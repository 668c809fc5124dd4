"""Checks of the rows before any training: each fold needs some, of every class."""

import hashlib

from pympi_train.comm.checks import agreed_within
from pympi_train.data.loading.load import count_folds
from pympi_train.errors import DataError
from pympi_train.runs.prepare import load_options, rows_of
from pympi_train.runs.recovery.same_data import fingerprint, sums_of_rows

# Of the arguments of `load`. Without virtual shards, any number of ranks may read.
PLAIN = {"virtual_shards": None, "class_weights": None, "oversample": None}


def checked_rows(plan, comm):
    """Return the fingerprints of the rows of a SearchPlan, whose folds are allowed.

    Returns
    -------
    dict of str to dict
        By the way of reading and splitting the rows: their `fingerprint`, of all folds,
        their `sums_of_rows`, and ``name``, the data set for messages.

    Raises
    ------
    DataError
        On every rank, if there are fewer rows than folds, a fold has no row, or a class
        misses a fold.

    Notes
    -----
    Collective. Reads the rows as a training does: once, or once for each value of a
    searched key of [data].
    """
    found = {}
    for trial in plan.of_other_data:
        config = plan.job_config(trial, 0)
        options = {**load_options(config), **PLAIN}
        if plan.n_folds > 1:
            data = _folded(plan.n_folds, config.data, options, comm)
        else:
            data = rows_of(config, comm, **PLAIN)
        sources = [s for s in (data.train, data.validation) if s is not None]
        about = {**fingerprint(data), "sums": sums_of_rows(sources, comm)}
        about["name"] = data.files.name
        way = repr(sorted(options.items()))
        found[hashlib.sha256(way.encode()).hexdigest()[:16]] = about
    return found


def _folded(n_folds, settings, options, comm):
    """Return the LoadedData of all folds; raise DataError as `checked_rows`.

    ``settings`` are those of [data], ``options`` the arguments of `load`.
    """
    counted = count_folds(n_folds=n_folds, comm=comm, **options)
    counts, classes, name, finish = counted
    problem = fold_problem(counts, classes, settings)
    if problem is not None:
        raise agreed_within(comm, DataError(f"{name}: {problem}"))
    return finish()


def fold_problem(counts, classes, settings):
    """Return what is wrong with folds, or None.

    Parameters
    ----------
    counts : ndarray, shape (folds, classes)
        Rows; of a regression one column.
    classes : ndarray or None
        Labels.
    settings : DataConfig
        Says how the folds are made.
    """
    n, n_folds = int(counts.sum()), len(counts)
    if n < n_folds:
        return f"--folds {n_folds} are more than the {n:,} rows"
    empty = [fold for fold, row in enumerate(counts) if not row.any()]
    if empty:
        return (
            f"fold {empty[0]} of {n_folds} has no row: ask for fewer --folds; with "
            "[data] group, there must be more groups than folds"
        )
    if classes is None:
        return None
    for label, column in zip(classes.tolist(), counts.T):
        if not column.all():
            fold = int(column.argmin())
            few = f"it has {int(column.sum()):,} rows"
            # Stratified folds have been tried, or exclude groups.
            has_other = settings.split != "stratified" and settings.group is None
            other = ', or set [data] split = "stratified"' if has_other else ""
            return (
                f"the class {label!r} misses fold {fold} of {n_folds}; {few}: ask for "
                f"fewer --folds{other}"
            )
    return None
