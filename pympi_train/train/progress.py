"""Where a training stands."""

from array import array
from dataclasses import dataclass, field

from pympi_train.errors import ConfigError

RECENT_STEPS = 100  # whose mean loss is shown while an epoch runs
PLAIN = ("epoch", "samples", "batch", "lr", "total_updates")


@dataclass
class Progress:
    """What a training has done, to go on from there.

    Attributes
    ----------
    epoch, samples : int
        Epochs done, and rows that went into them, over all ranks.
    batch : int
        Batches done of the epoch that was begun.
    weights, losses : array of float
        Of each of these batches: its weight, and weight times mean loss. On a rank
        that does not synchronise in each step, of its own share.
    cut : tuple of (int, int) or None
        Rows and batch size of the epoch that was begun.
    lr : float or None
        Learning rate of the last update.
    total_updates : int
        Updates of the whole training, as the learning rate's schedule knows them.
    """

    epoch: int = 0
    samples: int = 0
    batch: int = 0
    weights: array = field(default_factory=lambda: array("d"))
    losses: array = field(default_factory=lambda: array("d"))
    cut: tuple | None = None
    lr: float | None = None
    total_updates: int = 0

    def add(self, outcome, lr):
        """Take note of a step."""
        self.batch += 1
        self.weights.append(outcome.weight)
        self.losses.append(outcome.weight * outcome.loss)
        self.lr = lr

    def begin(self, n_rows, batch_size):
        """Begin an epoch, or go on with one; return in how many batches it is cut.

        Raises
        ------
        ConfigError
            If it was begun with other rows or another batch size.
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
        """Forget the last batches: their updates were undone."""
        if n_batches > 0:
            self.batch -= n_batches
            del self.weights[-n_batches:], self.losses[-n_batches:]

    def recent_loss(self):
        """Return the mean loss of the epoch's last steps, as this rank knows it."""
        weight = sum(self.weights[-RECENT_STEPS:])
        return sum(self.losses[-RECENT_STEPS:]) / weight if weight > 0 else 0.0

    def sums(self):
        """Return the sums of ``weights`` and of ``losses``."""
        return sum(self.weights), sum(self.losses)

    def numbers(self, sums):
        """Return where the training stands, as plain values by name.

        ``sums`` are those of ``weights`` and ``losses`` over all ranks.
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
        }

    @classmethod
    def of_numbers(cls, numbers, share):
        """Return the Progress that `numbers` told of.

        ``share(weight, loss)`` returns this rank's share of sums over all ranks.
        """
        plain = {name: numbers[name] for name in PLAIN}
        plain["cut"] = numbers["cut"] and tuple(numbers["cut"])
        weight, loss = share(numbers["weight"], numbers["loss"])
        return cls(**plain, weights=array("d", [weight]), losses=array("d", [loss]))

    def end_epoch(self, n_rows):
        """Take note of the end of an epoch."""
        self.epoch += 1
        self.samples += n_rows
        self.batch, self.cut = 0, None
        del self.weights[:], self.losses[:]
