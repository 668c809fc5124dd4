"""The sum over ranks of each rank's largest elements."""

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.backends.numpy import ops
from pympi_train.comm.sums.feedback import Feedback

SHARE = 0.01  # of the elements that a rank sends
PIECE = 2**24  # elements looked at together: indices are small, and so is scratch
STRIDE = 61  # elements between those that the threshold is guessed from
BLOCK = 2**15  # elements that stay in cache between two looks


class TopK(Feedback):
    r"""Sums of the ``k`` largest elements of each rank, as (index, value).

    To its gradient sum a rank adds what it has not sent so far [1]_, sends the ``k``
    elements of the largest magnitude of that, and keeps the others for the next time.
    The sum has up to ``k P`` elements that are not zero; the same bits on every rank,
    added up in rank order.

    Parameters
    ----------
    comm : MPI.Comm
    size : int
        Elements of a block.
    dtype : dtype
        float32 or float64.
    share : float
        ``k`` is this share of the elements, rounded up, of each 2^24 of them.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far.

    Notes
    -----
    A sum sends ``(4 + b) k (P - 1)`` bytes a rank, ``b`` those of an element, in two
    Allgather of indices and values for each 2^24 elements. That is less than the
    plain sum's ``2 b n (P - 1) / P`` up to ``P = 2 b n / (4 + b) / k``, at one percent
    and float32 a hundred ranks. A rank holds ``n`` elements of feedback.

    ``k`` is counted exactly, so that counts are equal on the ranks. The threshold is
    guessed from a sample, candidates above it are found in one pass, and the ``k``
    largest of these are selected; where the guess was too high, of all elements.

    What is not finite is sent first: then the sum is not finite either, on any rank,
    and it is not kept.

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
        """Forget what has not been sent."""
        self._residual[:] = 0.0

    @quiet
    def sum(self, block):
        """Replace ``block``, shape (size,), by the sum of what the ranks send.

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
            block[i] += part  # no index twice
        self.sent_bytes += (index.nbytes + values.nbytes) * (size - 1)
        if not np.isfinite(values).all():  # perhaps there were more than k
            left[~np.isfinite(left)] = 0.0


def largest(x, k):
    """Return indices of the ``k`` elements of ``x`` of the largest magnitude.

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
    # A few standard deviations of the sample's count more than k, to be seldom short.
    rank = k / STRIDE + 4 * (k / STRIDE) ** 0.5 + 4
    if rank >= sample.size / 2:
        return _largest(np.abs(x), k)
    place = sample.size - 1 - int(rank)
    least = np.partition(sample, place)[place]
    found = []
    for start in range(0, x.size, BLOCK):
        size = np.abs(x[start : start + BLOCK])
        np.less(size, least, out=(low := np.empty(size.size, bool)))
        found.append(np.flatnonzero(~low) + start)  # NaN is not less
    candidates = np.concatenate(found)
    if candidates.size < k:
        return _largest(np.abs(x), k)
    return candidates[_largest(np.abs(x[candidates]), k)]


def _largest(size, k):
    size[np.isnan(size)] = np.inf
    return np.sort(np.argpartition(size, size.size - k)[size.size - k :])
