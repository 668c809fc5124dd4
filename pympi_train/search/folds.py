"""Checks of the folds before any training: each needs rows, of every class."""

from pympi_train.comm.checks import agreed_within
from pympi_train.data.loading.load import count_folds
from pympi_train.errors import DataError
from pympi_train.runs.prepare import load_options


def require_folds(plan, comm):
    """Raise on every rank unless the rows allow the folds of a SearchPlan.

    Raises
    ------
    DataError
        If there are fewer rows than folds, a fold has no row, or a class misses a fold.

    Notes
    -----
    Collective. Reads the rows as a training does: once, or once for each value of a
    searched key of [data].
    """
    if plan.n_folds == 1:
        return
    for trial in plan.of_other_data:
        config = plan.job_config(trial, 0)
        options = load_options(config)
        counted = count_folds(n_folds=plan.n_folds, comm=comm, **options)
        counts, classes, name = counted
        problem = fold_problem(counts, classes, config.data)
        if problem is not None:
            raise agreed_within(comm, DataError(f"{name}: {problem}"))


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
