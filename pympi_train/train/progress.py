"""The progress of a training: epochs, batches, losses."""

from array import array
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from pympi_train.errors import ConfigError

RECENT_STEPS = 100  # the mean loss of these is shown while an epoch runs
PLAIN = ("epoch", "samples", "batch", "lr", "total_updates")


@dataclass
class Progress:
    """The progress of a training, from which it can be resumed.

    Attributes
    ----------
    epoch, samples : int
        Epochs done, and rows used in them, over all ranks.
    batch : int
        Batches done in the current epoch.
    weights, losses : array of float
        Weight, and weight times mean loss, of each of these batches. Without a
        synchronisation in each step they are those of the rank's own share.
    cut : tuple of (int, int) or None
        Number of rows and batch size of the current epoch.
    lr : float or None
        Learning rate of the last update.
    total_updates : int
        Updates of the whole training, as passed to the learning rate's schedule.
    spent : list of float
        What `Stopwatch.spent` had measured of the current epoch on this rank when
        ``fit`` was interrupted; empty if it was not.
    """

    epoch: int = 0
    samples: int = 0
    batch: int = 0
    weights: array = field(default_factory=lambda: array("d"))
    losses: array = field(default_factory=lambda: array("d"))
    cut: tuple | None = None
    lr: float | None = None
    total_updates: int = 0
    spent: list = field(default_factory=list)

    def add(self, outcome, lr):
        """Record a step."""
        self.batch += 1
        self.weights.append(outcome.weight)
        self.losses.append(outcome.weight * outcome.loss)
        self.lr = lr

    def begin(self, n_rows, batch_size):
        """Begin or continue an epoch; return its number of batches.

        Raises
        ------
        ConfigError
            If the epoch was begun with a different number of rows or batch size.
        """
        cut = n_rows, batch_size
        if self.batch > 0 and self.cut not in (None, cut):
            rows, size = self.cut
            raise ConfigError(
                f"epoch {self.epoch + 1} was begun with batches of {size} of {rows} "
                f"rows, and cannot go on with batches of {batch_size} of {n_rows}: end "
                f"it first, or take a state at the end of an epoch"
            )
        self.cut = cut
        return -(-n_rows // batch_size)

    def undo(self, n_batches):
        """Remove the last ``n_batches`` batches, whose updates were undone."""
        if n_batches > 0:
            self.batch -= n_batches
            del self.weights[-n_batches:], self.losses[-n_batches:]

    def recent_loss(self):
        """Return the mean loss of the epoch's last steps on this rank."""
        weight = sum(self.weights[-RECENT_STEPS:])
        return sum(self.losses[-RECENT_STEPS:]) / weight if weight > 0 else 0.0

    def sums(self):
        """Return the sums of ``weights`` and of ``losses``."""
        # Not by ``sum``, which from Python 3.12 on rounds only at its end: a resumed
        # epoch begins with a sum, and must end with the same bits.
        return reduce(add, self.weights, 0.0), reduce(add, self.losses, 0.0)

    def numbers(self, sums, spent):
        """Return the progress as plain values by name.

        ``sums`` are the sums of ``weights`` and of ``losses`` over all ranks, ``spent``
        the means of ``spent``.
        """
        return {
            "epoch": self.epoch,
            "samples": self.samples,
            "batch": self.batch,
            "cut": self.cut and list(self.cut),
            "weight": float(sums[0]),
            "loss": float(sums[1]),
            "lr": self.lr,
            "total_updates": self.total_updates,
            "spent": list(spent),
        }

    @classmethod
    def of_numbers(cls, numbers, share):
        """Return the Progress, given the values that `numbers` returned.

        ``share(weight, loss)`` returns this rank's share of the sums over all ranks.
        """
        plain = {name: numbers[name] for name in PLAIN}
        plain["cut"] = numbers["cut"] and tuple(numbers["cut"])
        plain["spent"] = list(numbers["spent"])
        weight, loss = share(numbers["weight"], numbers["loss"])
        return cls(**plain, weights=array("d", [weight]), losses=array("d", [loss]))

    def end_epoch(self, n_rows):
        """Record the end of an epoch."""
        self.epoch += 1
        self.samples += n_rows
        self.batch, self.cut, self.spent = 0, None, []
        del self.weights[:], self.losses[:]
