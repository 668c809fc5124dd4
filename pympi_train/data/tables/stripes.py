"""Stripes: runs of rows that do not depend on the ranks, and who reads which.

Whatever is computed stripe by stripe, and summed by a fixed tree, has the same bits on
any number of ranks; so have shards that are stripes.
"""

from pympi_train.comm.sums.tree import own_leaves
from pympi_train.data.tables.source import recut

STRIPE_BYTES = 32 << 20  # of a stripe in memory, unless its rows are given
MIN_ROWS = 256  # of a stripe, if they are not larger than that
MANY = 1024  # stripes that a table of many rows has at least, for as many ranks
MAX_VALUES = 1 << 22  # leaves times columns: a few numbers of each are in memory
MIN_LEAVES, MAX_LEAVES = 64, 1 << 14  # the plan of a sum has a line for each


class Stripes:
    """The stripes of the rows of a table, and those that this rank reads.

    Successive stripes make up a leaf of the tree of sums. A rank reads whole leaves.

    Parameters
    ----------
    table : Table
    comm : MPI.Comm
    rows : int, optional
        Number of rows of each stripe but the last.

    Attributes
    ----------
    rows, n : int
        Rows of a stripe; number of stripes.
    n_leaves : int
        At least the number of ranks; the last ones may be empty.
    leaves : range
        Those of this rank.
    """

    def __init__(self, table, comm, rows=None):
        self._table = table
        if rows is None:
            few = max(MIN_ROWS, table.n // MANY)
            rows = min(STRIPE_BYTES // table.row_bytes, few)
        self.rows = max(1, rows)
        self.n = -(-table.n // self.rows)
        width = sum(field.width for field in table.fields)
        most = min(max(MIN_LEAVES, MAX_VALUES // max(1, width)), MAX_LEAVES)
        self._per_leaf = -(-self.n // most)
        # Empty leaves at the end add zeros: the bits of the sums are the same.
        self.n_leaves = max(-(-self.n // self._per_leaf), comm.size)
        self.leaves = range(*own_leaves(comm.rank, comm.size, self.n_leaves))

    def of_leaf(self, leaf):
        """Return the stripes of a leaf: a range, possibly empty."""
        first = min(leaf * self._per_leaf, self.n)
        return range(first, min(first + self._per_leaf, self.n))

    def row_range(self, stripe):
        """Return (start, stop) of the rows of a stripe."""
        return stripe * self.rows, min((stripe + 1) * self.rows, self._table.n)

    @property
    def own_rows(self):
        """(start, stop) of this rank's rows."""
        own = self.own
        if not own:
            return self._table.n, self._table.n
        return self.row_range(own[0])[0], self.row_range(own[-1])[1]

    @property
    def own(self):
        """The stripes of this rank: a range."""
        if not self.leaves:
            return range(0)
        return range(
            self.of_leaf(self.leaves[0]).start, self.of_leaf(self.leaves[-1]).stop
        )

    def read(self, some=None):
        """Yield (stripe, its rows as one batch) of this rank's stripes.

        Or of ``some``, a range of stripes.
        """
        some = self.own if some is None else some
        if not some:
            return
        ranges = [self.row_range(stripe) for stripe in some]
        batches = self._table.pieces(ranges[0][0], ranges[-1][1])
        sizes = [stop - start for start, stop in ranges]
        yield from zip(some, recut(batches, sizes))

    def leaf_of(self, stripe):
        """Return the leaf of a stripe."""
        return stripe // self._per_leaf
