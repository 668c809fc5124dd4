"""A lane, one of many trainings on the same rows, and its result."""

import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from pympi_train.errors import ConfigError

TRAINING, FINISHED, DIVERGED = "training", "finished", "diverged"
DROPPED, STOPPED = "dropped", "stopped"


@dataclass(frozen=True)
class Lane:
    """The settings in which a training differs from those beside it.

    Parameters
    ----------
    learning_rate : float or None
        Before the schedule, above 0; None for L-BFGS.
    l2 : float
        Adds ``l2 / 2 |W|^2`` over weights to the loss.
    fold : int, optional
        Rows of this fold have weight 0 in the training, and the lane is validated on
        them. None: the lane trains on all rows.

    Raises
    ------
    ConfigError
        If a value is outside its limits.
    """

    learning_rate: Any = None
    l2: float = 0.0
    fold: Any = None

    def __post_init__(self):
        rate, l2, fold = self.learning_rate, self.l2, self.fold
        if rate is not None and not (_is(rate, Real) and 0 < rate < math.inf):
            raise ConfigError(
                f"learning_rate of a lane must be positive and finite, got {rate!r}"
            )
        if not (_is(l2, Real) and 0 <= l2 < math.inf):
            raise ConfigError(
                f"l2 of a lane must be finite and not negative, got {l2!r}"
            )
        if fold is not None and not (_is(fold, Integral) and 0 <= fold < 2**31):
            raise ConfigError(
                f"fold of a lane must be None or an integer from 0, got {fold!r}"
            )

    @property
    def held(self):
        """The fold that is held out, or -2, the fold of no row."""
        return -2 if self.fold is None else int(self.fold)


@dataclass
class LaneResult:
    """What became of a lane.

    Attributes
    ----------
    lane : Lane
    status : str
        "finished"; "diverged" (loss or gradient was not finite); "dropped" (by
        ``on_epoch``); "stopped" (the whole training was). During the training,
        "training".
    records : list of dict
        One per epoch: epoch, step, train_loss (mean over the epoch, each batch before
        its update), and, where rows are held out, validation_loss and accuracy, or rmse
        and r2. L-BFGS: one per iteration, with largest_gradient; only the last has the
        metrics of validation rows.
    weights : dict of str to ndarray, or None
        As `Trainer.weights`; those before the step that failed, if the lane diverged.
        None while the training goes on.
    scaling : Scaling or None
        Of the lane's own training rows, relative to the features of the data set. An
        infinite scale leaves out a column that is constant among them.
    message : str or None
        Why the lane diverged.
    """

    lane: Lane
    status: str = TRAINING
    records: list = field(default_factory=list)
    weights: Any = None
    scaling: Any = None
    message: Any = None


def _is(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)
