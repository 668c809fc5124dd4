"""Every rank holds all parameters; gradients are summed by Allreduce."""

from pympi_train.comm import collectives
from pympi_train.errors import DivergenceError
from pympi_train.parallel.base import WholeGradient, require_usable


class Allreduce(WholeGradient):
    """Parameters, gradients and optimizer state, whole on every rank.

    All ranks apply the same update to the same parameters with the same summed
    gradient, so replicas that start equal stay equal to the bit.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`; the optimizer's state is allocated here.

    Notes
    -----
    A step sends ``2 n (P - 1) / P`` elements a rank at best, ``n`` the parameters
    and ``P`` the ranks; a rank holds ``2 n`` elements and the optimizer's state.
    """

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        if optimizer is not None:
            optimizer.allocate(layout, ops)
        self.chosen = {"strategy": "allreduce"}

    def combine(self):
        """Sum the gradients over the ranks. Collective."""
        collectives.sum_in_place(self.comm, self.grads)
        n, size = self.grads.nbytes, self.comm.size
        self.sent_bytes += 2 * n * (size - 1) // size

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the parameters from the summed gradient of a batch."""
        if clip_norm is None:
            require_usable(self.grads, lr / weight)
        try:
            self._optimizer.update(
                self.params,
                self.grads,
                lr=lr,
                grad_scale=1.0 / weight,
                l2=l2,
                clip_norm=clip_norm,
            )
        except DivergenceError as error:  # found by the norm; the advice is the loop's
            raise DivergenceError("the gradient became NaN or infinite") from error
