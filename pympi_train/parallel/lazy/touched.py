"""Gradient, exchange and update of the columns that occur in a batch of sparse rows."""

from pympi_train.backends.csr import CSR
from pympi_train.comm.sums.columns import ColumnSum
from pympi_train.errors import DivergenceError
from pympi_train.optim.lazy import LazyUpdate
from pympi_train.parallel.whole_gradient import require_usable_square

LEAST_BYTES = 2**18  # smaller blocks stay in cache: dense updates are as fast
MOST_COLUMNS = 2**31 - 1  # as int32, with the bias
DENSE_SHARE = 16  # dense if the entries are more than one in so many columns


def can_be_lazy(model, optimizer, l2, block):
    """Return whether steps may touch a part of the parameters ``block`` alone.

    They then have the results of dense steps: the model is one product with sparse
    rows, and a parameter whose gradient is 0 does not change.
    """
    return (
        optimizer is not None
        and optimizer.is_lazy
        and l2 == 0
        and getattr(model, "is_one_product", False)
        and model.layout.tensors[0].shape[0] < MOST_COLUMNS
        and block.nbytes >= LEAST_BYTES
    )


class TouchedColumns:
    """The gradient of a step, of the columns that occur in its rows.

    A step is dense, decided by all ranks together, if the columns of all ranks would
    be more bytes than the whole gradient. A rank whose rows have entries in many
    columns computes a dense gradient from the start.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`, for which `can_be_lazy` holds.

    Attributes
    ----------
    is_summed : bool
        Whether the columns were summed, and not the dense gradient.
    sent_bytes : int
        Payload that this rank has sent so far.
    """

    def __init__(self, comm, layout, optimizer, ops):
        self._optimizer, self._ops = optimizer, ops
        self._lazy = LazyUpdate(optimizer, layout, ops)
        width = self._lazy.width
        self._sum = ColumnSum(comm, self._lazy.n_rows, width, layout.dtype)
        self._has_bias = len(layout.tensors) > 1
        self._is_dense = self.is_summed = False
        self.sent_bytes = 0

    def backward(self, model, index, grads):
        """Add a micro-batch's columns; return False if it must be computed densely.

        Parameters
        ----------
        model : Model
            Its ``loss`` was just called.
        index : int
            Of the micro-batch.
        grads : ndarray, shape (layout.size,)
            Receives the columns of earlier micro-batches if the step becomes dense.
        """
        if index == 0:
            self._sum.reset()
            self._is_dense = self.is_summed = False
        if self._is_dense:
            return False
        x, delta = model.last_product()
        limit = self._lazy.n_rows // DENSE_SHARE
        n_entries = x.n_entries if type(x) is CSR else limit + 1
        if n_entries + len(self._sum.columns) > limit:
            self._is_dense = True
            if index > 0:
                self._lazy.spread(self._sum.columns, self._sum.values, grads)
            return False
        self._sum.add(*self._touched(x, delta))
        return True

    def _touched(self, x, delta):
        """Return the touched columns and their sums; the bias is the last column."""
        room = int(self._has_bias)
        columns, sums = self._ops.sparse.csr_touched(x, delta, room)
        if self._has_bias:
            columns[-1] = self._lazy.n_rows - 1
            self._ops.column_sums(delta, sums[-1])
        return columns, sums

    def own(self, grads):
        """Return the values of the gradient: of the columns, or the dense ``grads``.

        Before ``combine`` those of this rank, then the sums over the ranks.
        """
        return grads if self._is_dense else self._sum.values.reshape(-1)

    def combine(self, grads):
        """Sum the columns over the ranks; return False if the sum must be dense.

        ``grads`` then has this rank's gradient.

        Notes
        -----
        Collective.
        """
        counts = self._sum.counts(-1 if self._is_dense else len(self._sum.columns))
        if (counts >= 0).all() and self._sum.is_cheaper(counts):
            self.sent_bytes += self._sum.sum(counts)
            self.is_summed = True
        elif not self._is_dense:
            self._lazy.spread(self._sum.columns, self._sum.values, grads)
        return self.is_summed

    def update(self, params, *, lr, weight, clip_norm=None):
        """Update the columns that were summed, or raise DivergenceError unchanged."""
        values, scale = self._sum.values, 1.0 / weight
        if clip_norm is None:
            square = self._ops.square(values.reshape(-1))
            require_usable_square(square, lr / weight, values.dtype)
        else:
            try:
                norm = self._lazy.norm(values, scale)
                scale *= self._optimizer.clip_factor(norm, clip_norm)
            except DivergenceError as error:
                raise DivergenceError("the gradient became NaN or infinite") from error
        self._lazy.update(
            params, self._sum.columns, values, lr=lr, grad_scale=scale
        )
