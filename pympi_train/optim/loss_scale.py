"""A factor on the loss that keeps gradients within the range of float16."""

START = 2.0**16  # over the global batch: gradients are sums, not means
LEAST, MOST = 2.0**-24, 2.0**24
PATIENCE = 2000  # updates without an overflow before the scale is doubled


class LossScale:
    """A dynamic loss scale: halved on overflow, doubled after a run without [1]_.

    Ranks that receive the same summed gradients see the same overflows, and so have
    the same scale.

    Parameters
    ----------
    batch_size : int
        Rows of a global batch.

    Attributes
    ----------
    value : float
        A power of two, so that multiplying and dividing by it is exact.
    skipped : int
        Number of skipped updates.

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
        """Return the state of the scale, as plain values by name."""
        return {
            "value": self.value,
            "batch_size": self._batch_size,
            "skipped": self.skipped,
            "good": self._good,
        }

    def take_numbers(self, numbers):
        """Restore the state that `numbers` returned."""
        self.value, self._batch_size = numbers["value"], numbers["batch_size"]
        self.skipped, self._good = numbers["skipped"], numbers["good"]

    def expect(self, batch_size):
        """Set the rows of the next batches; lower the scale if they are more.

        Gradients are summed over the rows, so larger batches overflow earlier.
        """
        if batch_size > self._batch_size:
            start = max(START / (1 << (batch_size - 1).bit_length()), LEAST)
            self.value, self._batch_size = min(self.value, start), batch_size

    def fitted(self):
        """Record an update without overflow."""
        self._good += 1
        if self._good == PATIENCE:
            self.value, self._good = min(2 * self.value, MOST), 0

    def overflowed(self, used):
        """Record an overflow; return False once the scale has reached its minimum.

        Parameters
        ----------
        used : float
            The scale with which the gradient was computed. A second overflow with the
            same scale, from a step already in flight, does not lower it again.
        """
        self.skipped += 1
        self.value, self._good = min(self.value, used / 2), 0
        return self.value >= LEAST
