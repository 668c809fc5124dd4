"""Early stopping: when training no longer helps, and which parameters were best."""

import math

from pympi_train.comm.collectives import from_rank_0

HIGHER_IS_BETTER = ("accuracy", "r2")


def choose_monitor(monitor, task, has_validation):
    """Return the key of the epochs' records that ``monitor`` means.

    Parameters
    ----------
    monitor : str
        A key, or "auto": the loss on validation rows if there are any, else on
        training rows.
    task : {"classification", "regression", None}
        Of the model.
    has_validation : bool
        Whether there are validation rows.

    Raises
    ------
    ValueError
        If no record will have the key.
    """
    known = ["train_loss"]
    if has_validation:
        measured = {"classification": ["accuracy"], "regression": ["rmse", "r2"]}
        known += ["validation_loss", *measured.get(task, [])]
    if monitor == "auto":
        return "validation_loss" if has_validation else "train_loss"
    if monitor not in known:
        raise ValueError(
            f"monitor: expected auto or one of {', '.join(known)}, got {monitor!r}"
            + ("" if has_validation else "; there are no validation rows")
        )
    return monitor


class EarlyStopping:
    """Watches one metric and keeps the parameters of its best epoch.

    Parameters
    ----------
    comm : MPI.Comm
        Rank 0 decides for all.
    params : ndarray, shape (n,)
        The flat parameter block; a copy of it is kept.
    ops : module
        The backend, whose array it is.
    patience : int
        Epochs without a better value after which to stop.
    monitor : str
        Key of the epoch's record.
    """

    def __init__(self, comm, params, ops, patience, monitor):
        self._comm, self._params, self._ops = comm, params, ops
        self._patience, self.monitor = patience, monitor
        self._sign = -1.0 if monitor in HIGHER_IS_BETTER else 1.0
        self._best = math.inf
        self._best_params = ops.empty(params.shape, params.dtype)
        ops.copy(params, self._best_params)
        self.best_epoch = None

    def should_stop(self, record):
        """Take the record of an epoch; return whether to stop after it. Collective."""
        (value,) = from_rank_0(self._comm, self._sign * record[self.monitor])
        if math.isnan(value):  # no later value would be below it
            value = math.inf
        if value < self._best or self.best_epoch is None:
            self._best, self.best_epoch = value, record["epoch"]
            self._ops.copy(self._params, self._best_params)
        return record["epoch"] - self.best_epoch >= self._patience

    def restore_best(self):
        """Set the parameters to those of the best epoch."""
        if self.best_epoch is not None:
            self._ops.copy(self._best_params, self._params)
