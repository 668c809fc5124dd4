"""What compressed sums have lost so far, and owe to the next one."""

from pympi_train.flat.state import held


class Feedback:
    """Base of the sums with error feedback: what survives of them.

    Attributes
    ----------
    _comm : MPI.Comm
    _ops : module
        The backend.
    _residual : array, shape (n,)
        What this rank's elements have lost.
    """

    _is_owed = False  # on one rank, where nothing is compressed: by an earlier training

    def holdings(self, space):
        """Return what survives, of blocks that are ``space``, a Layout or Part.

        Each rank has lost something of its own: another number of ranks takes even
        parts of the sum.
        """
        if not len(self._residual):
            return []
        of_rank = (self._comm.rank, self._comm.size)
        how = {"of_rank": of_rank, "mixing": "sum", "default": 0.0}
        return [held("residual", space, self._residual, self._ops, **how)]

    def loaded(self):
        """Take note that the holdings were written: one rank pays what is owed."""
        self._is_owed = self._comm.size == 1

    def _pay(self, block, *residuals):
        """Add to the block of the only rank what more of them had lost."""
        if self._is_owed:
            for residual in residuals:
                self._ops.add(residual, block)
                self._ops.fill(residual, 0.0)
        self._is_owed = False
