"""The sum over ranks of each rank's largest elements."""

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.backends.numpy import ops
from pympi_train.comm.sums.feedback import Feedback

SHARE = 0.01  # share of the elements that a rank sends
PIECE = 2**24  # elements searched together, so that indices and scratch are small
STRIDE = 61  # distance of the sampled elements that the threshold is estimated from
BLOCK = 2**15  # elements that stay in cache between two operations


class TopK(Feedback):
    r"""Sums of the ``k`` largest elements of each rank, as (index, value).

    A rank adds the elements that it has not sent so far to its gradient sum [1]_. It
    sends the ``k`` elements of largest magnitude, and keeps the others for the next
    sum. The sum has up to ``k P`` non-zero elements. They are added in rank order, and
    all ranks get the same bits.

    Parameters
    ----------
    comm : MPI.Comm
    size : int
        Number of elements of a block.
    dtype : dtype
        float32 or float64.
    share : float
        ``k`` is this share of the elements, rounded up, in each piece of 2^24 elements.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far.

    Notes
    -----
    With elements of ``b`` bytes, a rank sends ``(4 + b) k (P - 1)`` bytes per sum, in
    two Allgather, of indices and values, per 2^24 elements. This is less than the
    ``2 b n (P - 1) / P`` bytes of the plain sum for ``P < 2 b n / (4 + b) / k``: up to
    a hundred ranks with one percent and float32. A rank keeps ``n`` elements of
    feedback.

    Exactly ``k`` elements are selected, so that the counts are equal on all ranks. The
    threshold is estimated from a sample, the candidates above it are found in one pass,
    and the ``k`` largest candidates are selected. If the estimate was too high, the
    ``k`` largest of all elements are selected.

    Elements that are not finite are sent first and not kept. The sum is then not
    finite on any rank.

    References
    ----------
    .. [1] S. U. Stich, J.-B. Cordonnier and M. Jaggi, "Sparsified SGD with Memory",
       NeurIPS 2018. arXiv:1809.07599.
    """

    def __init__(self, comm, size, dtype, *, share=SHARE, piece=PIECE):
        self.sent_bytes = 0
        self._comm, self._share, self._ops = comm, share, ops
        self._residual = np.zeros(size, dtype)
        self._pieces = range(0, size, piece)
        self._length = piece

    def reset(self):
        """Set the elements that have not been sent to zero."""
        self._residual[:] = 0.0

    @quiet
    def sum(self, block):
        """Replace ``block``, shape (size,), by the sum of the elements that ranks send.

        Notes
        -----
        Collective.
        """
        if self._comm.size == 1:
            self._pay(block, self._residual)
            return
        for start in self._pieces:
            stop = start + self._length
            self._sum(block[start:stop], self._residual[start:stop])

    def _sum(self, block, left):
        size = self._comm.size
        left += block
        k = max(1, -int(-self._share * left.size // 1))
        index = largest(left, k).astype(np.int32)
        values = left[index]
        left[index] = 0.0
        indices = np.empty((size, k), np.int32)
        parts = np.empty((size, k), left.dtype)
        self._comm.Allgather(index, indices)
        self._comm.Allgather(values, parts)
        block[:] = 0.0
        for i, part in zip(indices, parts):
            block[i] += part  # the indices of a rank are distinct
        self.sent_bytes += (index.nbytes + values.nbytes) * (size - 1)
        if not np.isfinite(values).all():  # more than k elements may be non-finite
            left[~np.isfinite(left)] = 0.0


def largest(x, k):
    """Return the indices of the ``k`` elements of ``x`` with the largest magnitudes.

    Parameters
    ----------
    x : ndarray, shape (n,)
        NaN counts as infinite.
    k : int
        From 1 to n.

    Returns
    -------
    ndarray, shape (k,), intp
        Ascending.
    """
    sample = np.abs(x[::STRIDE])
    # A margin of four standard deviations of the sample's count, to rarely miss k.
    rank = k / STRIDE + 4 * (k / STRIDE) ** 0.5 + 4
    if rank >= sample.size / 2:
        return _largest(np.abs(x), k)
    place = sample.size - 1 - int(rank)
    least = np.partition(sample, place)[place]
    found = []
    for start in range(0, x.size, BLOCK):
        size = np.abs(x[start : start + BLOCK])
        np.less(size, least, out=(low := np.empty(size.size, bool)))
        found.append(np.flatnonzero(~low) + start)  # includes NaN, which is not less
    candidates = np.concatenate(found)
    if candidates.size < k:
        return _largest(np.abs(x), k)
    return candidates[_largest(np.abs(x[candidates]), k)]


def _largest(size, k):
    size[np.isnan(size)] = np.inf
    return np.sort(np.argpartition(size, size.size - k)[size.size - k :])
