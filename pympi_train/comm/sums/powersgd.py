"""PowerSGD: sums of matrices over ranks by projections on a few directions."""

import math

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.backends.numpy import ops
from pympi_train.comm.collectives import ring_bytes, sum_in_place
from pympi_train.comm.sums.feedback import Feedback
from pympi_train.flat.memory import Layout, Tensor, empty_block
from pympi_train.flat.state import held

RANK = 4
BLOCK = 2**15  # elements of a product computed at once, so that they stay in cache
KEY = 0x506F776572534744  # key of the random bits of the initial directions


class PowerSGD(Feedback):
    r"""Sums of matrices as two thin warm-started factors; other elements uncompressed.

    With :math:`M_w` the gradient sum of rank :math:`w` plus its loss of earlier sums,
    and :math:`Q` the directions of the last step [1]_:

    .. math::
        P = \mathrm{orthonormal}\bigl(\textstyle\sum_w M_w Q\bigr), \qquad
        Q_w = M_w^\top P, \qquad Q = \textstyle\sum_w Q_w, \qquad
        \textstyle\sum_w M_w \approx P Q^\top .

    A rank keeps :math:`M_w - P Q_w^\top`. Together, the ranks keep the error of the
    sum.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
        Weights with two dimensions are compressed if the factors of ``rank`` columns
        have less than half of the elements of the matrix.
    rank : int
        Number of columns of a factor.

    Attributes
    ----------
    sent_bytes : int
        Payload that this rank has sent so far, as in an ideal Allreduce.

    Notes
    -----
    A sum takes two Allreduce for any number of matrices. The first sums all
    :math:`M Q` and the ``m`` elements that are not compressed, the second all
    :math:`Q`. A rank sends ``2 (P - 1) / P (r (rows + columns) + m)`` elements, summed
    over all matrices. A rank keeps ``n`` elements of feedback.

    The product of the factors and the orthonormal columns are computed element by
    element, not by BLAS. They are therefore equal on all ranks, with any processors,
    if MPI gives all ranks the same sum.

    If an element on a rank is not finite, its whole matrix becomes NaN on all ranks,
    and no loss of it is kept.

    References
    ----------
    .. [1] T. Vogels, S. P. Karimireddy and M. Jaggi, "PowerSGD: Practical Low-Rank
       Gradient Compression for Distributed Optimization", NeurIPS 2019.
       arXiv:1905.13727, algorithms 1 and 2.
    """

    def __init__(self, comm, layout, *, rank=RANK):
        self.sent_bytes = 0
        self._comm, self._layout, self._ops = comm, layout, ops
        alone = comm.size == 1
        self._matrices, self._plain, end, n_right = [], [], 0, 0
        for tensor, start in zip(layout.tensors, layout.offsets):
            where = slice(start, start + tensor.size)
            if tensor.is_weight and _is_worth(tensor.shape, rank):
                matrix = _Matrix(tensor, rank, where, end, n_right, layout.dtype)
                self._matrices.append(matrix)
                end, n_right = matrix.left.stop, matrix.right.stop
        for where in _others(layout, self._matrices):
            n = where.stop - where.start
            self._plain.append((where, slice(end, end + n)))
            end += n
        self._left = np.empty(0 if alone else end, layout.dtype)
        self._right = np.empty(0 if alone else n_right, layout.dtype)
        self._residual = np.zeros(layout.size if self._matrices else 0, layout.dtype)
        shapes = [Tensor(m.name, (m.shape[1], rank)) for m in self._matrices]
        self._of_q = Layout(shapes, layout.dtype)
        self._directions = empty_block(self._of_q)
        for matrix, q in zip(self._matrices, self._of_q.views(self._directions)):
            matrix.q = q
        self.reset()

    def reset(self):
        """Reset the losses of earlier sums and the directions."""
        self._residual[:] = 0.0
        for matrix in self._matrices:
            matrix.q[...] = matrix.start_directions()

    def holdings(self, space):
        """Return the state: the losses of each rank, and the directions."""
        found = super().holdings(space)
        if self._matrices:
            how = {"default": 0.0}
            found.append(
                held("directions", self._of_q, self._directions, ops, **how)
            )
        return found

    def loaded(self):
        """Record that the holdings were loaded; a single rank adds them to its sum."""
        super().loaded()
        for matrix in self._matrices:
            if not matrix.q.any():  # saved by a training without directions
                matrix.q[...] = matrix.start_directions()

    @quiet
    def sum(self, block):
        """Replace ``block``, shape (layout.size,), by its approximate sum over ranks.

        Notes
        -----
        Collective.
        """
        if self._comm.size == 1:
            if self._matrices:
                self._pay(block, self._residual)
            return
        for where, place in self._plain:
            self._left[place] = block[where]
        for m in self._matrices:
            rest = self._residual[m.where]
            rest += block[m.where]
            np.matmul(rest.reshape(m.shape), m.q, out=m.of(self._left, m.left))
        self._sum(self._left)
        own = []
        for m in self._matrices:
            orthonormalise(m.of(self._left, m.left))
            q = m.of(self._right, m.right)
            rest = self._residual[m.where].reshape(m.shape)
            np.matmul(rest.T, m.of(self._left, m.left), out=q)
            own.append(q.copy())
        self._sum(self._right)
        for m, q in zip(self._matrices, own):
            p, total = m.of(self._left, m.left), m.of(self._right, m.right)
            self._finish(m, p, q, total, block[m.where].reshape(m.shape))
        for where, place in self._plain:
            block[where] = self._left[place]

    def _finish(self, m, p, own, total, out):
        """Write the sum of one matrix, keep its loss, and set new directions."""
        rest = self._residual[m.where].reshape(m.shape)
        if not (np.isfinite(p).all() and np.isfinite(total).all()):  # on all ranks
            out[...] = np.nan
            rest[...] = 0.0
            m.q[...] = m.start_directions()
            return
        step = max(1, BLOCK // m.shape[1])
        for i in range(0, m.shape[0], step):
            rows = slice(i, i + step)
            rest[rows] -= product(p[rows], own)
            out[rows] = product(p[rows], total)
        top = np.abs(total).max(axis=0)
        m.q[...] = np.where(top > 0, total / top, m.start_directions())

    def _sum(self, block):
        sum_in_place(self._comm, block)
        self.sent_bytes += ring_bytes(block.nbytes, self._comm.size)


class _Matrix:
    """Position of a matrix in the block, and of its factors in the sent arrays."""

    def __init__(self, tensor, rank, where, left, right, dtype):
        shape = tensor.shape
        self.name, self.shape, self.rank = tensor.name, shape, rank
        self.where, self.dtype = where, dtype
        self.left = slice(left, left + shape[0] * rank)
        self.right = slice(right, right + shape[1] * rank)

    def of(self, packed, place):
        """Return a factor as a view of a sent array."""
        return packed[place].reshape(-1, self.rank)

    def start_directions(self):
        """Return fixed random numbers in [-1, 1), shape (columns, rank)."""
        source = np.random.Philox(key=np.array([KEY, self.where.start], np.uint64))
        words = source.random_raw(self.shape[1] * self.rank) >> np.uint64(11)
        numbers = words * 2.0**-52 - 1.0
        return numbers.reshape(self.shape[1], self.rank).astype(self.dtype)


def _is_worth(shape, rank):
    return len(shape) == 2 and 2 * rank * sum(shape) < math.prod(shape)


def _others(layout, matrices):
    """Return the slices of all elements outside the matrices, including padding."""
    ends = [0] + [m.where.stop for m in matrices]
    starts = [m.where.start for m in matrices] + [layout.size]
    return [slice(a, b) for a, b in zip(ends, starts) if a < b]


def orthonormalise(p):
    """Make the columns of ``p``, shape (n, r), orthonormal in place.

    Uses modified Gram-Schmidt in float64. A column that lies in the span of the columns
    before it, to the precision of ``p``, becomes zero.
    """
    columns = p.T.astype(np.float64)
    columns /= max(np.abs(columns).max(initial=0.0), 1e-300)
    for i, column in enumerate(columns):
        size = math.sqrt((column * column).sum())
        for _ in range(2):  # the second pass removes rounding errors
            for other in columns[:i]:
                column -= (column * other).sum() * other
        rest = math.sqrt((column * column).sum())
        if rest > 4 * np.finfo(p.dtype).eps * size:
            column /= rest
        elif rest <= 4 * np.finfo(p.dtype).eps * size:  # NaN must stay NaN
            column[:] = 0.0
    p[...] = columns.T


def product(p, q):
    """Return ``p q^T`` for shapes (n, r) and (m, r), added column by column."""
    out = p[:, :1] * q[:, 0]
    part = np.empty_like(out)
    for k in range(1, p.shape[1]):
        np.multiply(p[:, k : k + 1], q[:, k], out=part)
        out += part
    return out
