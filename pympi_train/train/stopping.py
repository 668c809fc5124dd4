"""Early stopping: ends training without improvement and keeps the best epoch."""

import math

from pympi_train.comm.collectives import from_rank_0

HIGHER_IS_BETTER = ("accuracy", "r2")


def choose_monitor(monitor, task, has_validation):
    """Return the key in the epochs' records that ``monitor`` selects.

    Parameters
    ----------
    monitor : str
        A key, or "auto": the validation loss if there are validation rows, else the
        training loss.
    task : {"classification", "regression", "language", None}
        The model's task.
    has_validation : bool
        Whether there are validation rows.

    Raises
    ------
    ValueError
        If the records will not have the key.
    """
    known = ["train_loss"]
    if has_validation:
        measured = {
            "classification": ["accuracy"],
            "regression": ["rmse", "r2"],
            "language": ["accuracy"],
        }
        known += ["validation_loss", *measured.get(task, [])]
    if monitor == "auto":
        return "validation_loss" if has_validation else "train_loss"
    if monitor not in known:
        raise ValueError(
            f"monitor: expected auto or one of {', '.join(known)}, got {monitor!r}"
            + ("" if has_validation else "; there are no validation rows")
        )
    return monitor


def cost(record, monitor):
    """Return the metric of an epoch's record as a value to minimise.

    NaN counts as infinite.
    """
    value = -record[monitor] if monitor in HIGHER_IS_BETTER else record[monitor]
    return math.inf if math.isnan(value) else value


def has_reached(record, monitor, target):
    """Return whether the metric of an epoch's record is at least as good as a value."""
    return cost(record, monitor) <= cost({monitor: target}, monitor)


def when_reached(records, monitor, target):
    """Return the first epoch whose metric has reached a value, and its cost; or None.

    Parameters
    ----------
    records : list of dict
        Of all epochs of a training.
    monitor : str
        Key of the records.
    target : float

    Returns
    -------
    dict or None
        monitor, target, value, epoch, steps, samples, and the seconds of the epochs up
        to here, of training alone: without evaluation, checkpoints and start-up.
    """
    seconds = 0.0
    for record in records:
        seconds += record["wall_s"]
        if record[monitor] is not None and has_reached(record, monitor, target):
            return {
                "monitor": monitor,
                "target": target,
                "value": record[monitor],
                "epoch": record["epoch"],
                "steps": record["step"],
                "samples": record["samples"],
                "seconds": seconds,
            }
    return None


class EarlyStopping:
    """Monitors one metric and keeps the best epoch.

    Parameters
    ----------
    comm : MPI.Comm
        Rank 0 decides for all.
    patience : int
        Number of epochs without improvement after which to stop.
    monitor : str
        Key of the epoch's record.
    keep : callable
        Called after each epoch that is the best so far.

    Attributes
    ----------
    best : dict or None
        Record of the best epoch.
    """

    def __init__(self, comm, patience, monitor, keep):
        self._comm, self.patience, self.monitor = comm, patience, monitor
        self._keep, self.best = keep, None

    def take(self, record):
        """Add an epoch's record; keep the epoch if it is the best. Collective."""
        value = cost(record, self.monitor)
        best = math.inf if self.best is None else cost(self.best, self.monitor)
        (is_better,) = from_rank_0(self._comm, float(value < best))
        if is_better or self.best is None:
            self.best = record
            self._keep()

    def is_over(self, epoch):
        """Return whether the last ``patience`` epochs brought no improvement."""
        return self.best is not None and epoch - self.best["epoch"] >= self.patience
