"""A user's batch as a source."""

from pympi_train.backends.csr import CSR
from pympi_train.data.sources.dataset import Dataset


class OwnBatch(Dataset):
    """A user's batch as a source of this rank alone.

    Parameters
    ----------
    batch : Batch
        With arrays on the host.
    """

    def __init__(self, batch):
        self.x, self.y, self.weights, self._rows = batch
        self.start, self.stop = 0, len(batch.x)
        self.n, self.is_sparse = self.stop, isinstance(batch.x, CSR)

    def numbers(self, rows):
        """Return the numbers that came with the batch, or None."""
        if isinstance(self._rows, slice):
            first = self._rows.start
            return slice(first + rows.start, first + rows.stop)
        return None if self._rows is None else self._rows[rows]
