"""Curvature pairs of L-BFGS, and sums over blocks in a fixed order."""

import numpy as np

# Elements per block: the blocks of one operation fit the L2 cache, and no BLAS splits
# so short a dot product over threads, which would change the order of summation.
BLOCK = 8192


class Pairs:
    r"""The last pairs (s, y) of steps and gradient differences, in a ring.

    Parameters
    ----------
    length : int
        Maximum number of pairs.
    size : int
        Elements of a block.
    dtype : dtype
        Of the blocks.

    Attributes
    ----------
    n_pairs : int
        Number of pairs held; setting it to 0 discards them.
    """

    def __init__(self, length, size, dtype):
        # One spare block, so that a candidate does not overwrite a good pair.
        self.s = [np.zeros(size, dtype) for _ in range(length + 1)]
        self.y = [np.zeros(size, dtype) for _ in range(length + 1)]
        self.sy = [0.0] * (length + 1)
        self.length, self.n_pairs, self.next, self.scale = length, 0, 0, 1.0
        self.work = np.zeros(min(BLOCK, size), dtype)

    def candidate(self):
        """Return the blocks for the next pair; `add` makes it part of the history."""
        return self.s[self.next], self.y[self.next]

    def add(self, sy, yy):
        """Add the candidate to the pairs, given positive ``s.y`` and ``y.y``."""
        self.sy[self.next], self.scale = sy, sy / yy
        self.next = (self.next + 1) % (self.length + 1)
        self.n_pairs = min(self.n_pairs + 1, self.length)

    def newest_first(self):
        """Return the indices in the ring of the pairs held, newest first."""
        n = self.length + 1
        return [(self.next - 1 - i) % n for i in range(self.n_pairs)]

    def solve(self, grad, out, dot):
        r"""Write :math:`-H g` into ``out`` by the two-loop recursion.

        Parameters
        ----------
        grad, out : ndarray, shape (size,)
            The gradient g, and the block for the direction.
        dot : callable
            ``dot(a, b) -> float``, equal on all ranks.

        References
        ----------
        .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd ed.,
           2006, Algorithm 7.4; the scale of the first H is equation 7.20.
        """
        newest_first = self.newest_first()
        np.negative(grad, out=out)
        alphas = {}
        for i in newest_first:
            alphas[i] = dot(self.s[i], out) / self.sy[i]
            self._add_multiple(out, -alphas[i], self.y[i])
        out *= self.scale
        for i in reversed(newest_first):
            beta = dot(self.y[i], out) / self.sy[i]
            self._add_multiple(out, alphas[i] - beta, self.s[i])

    def _add_multiple(self, out, factor, x):
        """Add ``factor * x`` to ``out``, without a temporary of full size."""
        for i in range(0, out.size, BLOCK):
            part = x[i : i + BLOCK]
            work = self.work[: part.size]
            np.multiply(part, factor, out=work)
            out[i : i + BLOCK] += work


def dot(a, b):
    """Return ``a @ b``, accumulated in float64, block by block in a fixed order."""
    total = 0.0
    for i in range(0, a.size, BLOCK):
        total += float(
            np.dot(
                a[i : i + BLOCK].astype(np.float64, copy=False),
                b[i : i + BLOCK].astype(np.float64, copy=False),
            )
        )
    return total


def largest_and_sum(grad):
    """Return the largest magnitude and the sum of magnitudes, in float64.

    The largest is NaN if any element is.
    """
    largest, total = 0.0, 0.0
    for i in range(0, grad.size, BLOCK):
        magnitudes = np.abs(grad[i : i + BLOCK])
        # Python's max() would drop a NaN.
        largest = float(np.maximum(largest, magnitudes.max()))
        total += float(magnitudes.sum(dtype=np.float64))
    return largest, total
