"""A factor on the loss that keeps gradients within what float16 holds."""

START = 2.0**16  # over the global batch: gradients are sums, not means
LEAST, MOST = 2.0**-24, 2.0**24
PATIENCE = 2000  # updates without an overflow before the scale is doubled


class LossScale:
    """Powers of two, halved when a gradient overflows and doubled after a while [1]_.

    Ranks that see the same summed gradients, and so the same overflows, have the same
    scale.

    Parameters
    ----------
    batch_size : int
        Rows of a global batch.

    Attributes
    ----------
    value : float
        A power of two: to multiply by it and divide again loses nothing.
    skipped : int
        Updates that were not taken.

    References
    ----------
    .. [1] P. Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2.
       arXiv:1710.03740.

    Examples
    --------
    >>> scale = LossScale(batch_size=200)
    >>> scale.value
    256.0
    >>> scale.overflowed(used=256.0)
    True
    >>> scale.value
    128.0
    """

    def __init__(self, batch_size):
        self.value, self._batch_size = MOST, 0
        self.skipped = self._good = 0
        self.expect(batch_size)

    def numbers(self):
        """Return what a training goes on from, as plain values by name."""
        return {
            "value": self.value,
            "batch_size": self._batch_size,
            "skipped": self.skipped,
            "good": self._good,
        }

    def take_numbers(self, numbers):
        """Go on from what `numbers` returned."""
        self.value, self._batch_size = numbers["value"], numbers["batch_size"]
        self.skipped, self._good = numbers["skipped"], numbers["good"]

    def expect(self, batch_size):
        """Take note of the rows of batches to come; of more than before, start lower.

        Gradients are summed over them.
        """
        if batch_size > self._batch_size:
            start = max(START / (1 << (batch_size - 1).bit_length()), LEAST)
            self.value, self._batch_size = min(self.value, start), batch_size

    def fitted(self):
        """Take note of an update whose gradient fitted."""
        self._good += 1
        if self._good == PATIENCE:
            self.value, self._good = min(2 * self.value, MOST), 0

    def overflowed(self, used):
        """Take note of a gradient that did not fit; return whether there is hope.

        Parameters
        ----------
        used : float
            The scale that it was computed with: the next one may have been computed
            with it too, and says nothing new.
        """
        self.skipped += 1
        self.value, self._good = min(self.value, used / 2), 0
        return self.value >= LEAST
