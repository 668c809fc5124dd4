"""Error feedback of compressed sums: losses that are added to the next sum."""

from pympi_train.flat.state import held


class Feedback:
    """Base class of the sums with error feedback, with their state.

    Attributes
    ----------
    _comm : MPI.Comm
    _ops : module
        The backend.
    _residual : array, shape (n,)
        Loss of each element on this rank.
    """

    # On one rank nothing is compressed, but an earlier training may have left a loss.
    _is_owed = False

    def holdings(self, space):
        """Return the state for blocks of ``space``, a Layout or Part.

        Each rank has its own losses. If a training continues with another number of
        ranks, each rank takes an equal part of the sum of the losses.
        """
        if not len(self._residual):
            return []
        of_rank = (self._comm.rank, self._comm.size)
        how = {"of_rank": of_rank, "mixing": "sum", "default": 0.0}
        return [held("residual", space, self._residual, self._ops, **how)]

    def loaded(self):
        """Record that the holdings were loaded; a single rank adds them to its sum."""
        self._is_owed = self._comm.size == 1

    def _pay(self, block, *residuals):
        """Add the losses of an earlier training to the block of a single rank."""
        if self._is_owed:
            for residual in residuals:
                self._ops.add(residual, block)
                self._ops.fill(residual, 0.0)
        self._is_owed = False
