"""The columns of each lane in blocks of columns."""

import numpy as np

EXACT_WIDTH = 8  # columns of a block in exact mode, or a multiple


class LaneColumns:
    """The arrangement of the outputs of L lanes as columns of blocks.

    A lane's c outputs are columns that follow each other in one block. There is a
    single block; or, in exact mode, blocks of 8 columns, or of the next multiple of 8
    if c is larger. The bits of a column of a matrix product depend on the width of the
    product, but neither on the place of the column nor on the other columns, if the
    width is a multiple of 8. Thus they depend neither on the number of lanes nor on
    their order.

    Parameters
    ----------
    n_lanes : int
        L, at least 1.
    n_outputs : int
        c.
    is_exact : bool

    Attributes
    ----------
    n_blocks, width : int
        Number of blocks, and columns of each.
    n_slots : int
        Lanes that have room in a block; unused slots are zero.
    """

    def __init__(self, n_lanes, n_outputs, is_exact=False):
        self.n_lanes, self.n_outputs, self.is_exact = n_lanes, n_outputs, is_exact
        self.n_slots = max(1, EXACT_WIDTH // n_outputs) if is_exact else n_lanes
        self.width = self.n_slots * n_outputs
        if is_exact:
            self.width = -(-self.width // EXACT_WIDTH) * EXACT_WIDTH
        self.n_blocks = -(-n_lanes // self.n_slots)
        self._lane_of_column = np.zeros((self.n_blocks, self.width), np.intp)
        self._is_used = np.zeros(self._lane_of_column.shape, bool)
        lanes = self.by_slot(np.arange(n_lanes), fill=-1)[:, :, None]
        self.slots(self._lane_of_column)[...] = np.maximum(lanes, 0)
        self.slots(self._is_used)[...] = lanes >= 0
        self._is_full = bool(self._is_used.all())

    def slots(self, block):
        """Return a view of arrays (..., width) as (..., slots, outputs)."""
        used = block[..., : self.n_slots * self.n_outputs]
        return used.reshape(*block.shape[:-1], self.n_slots, self.n_outputs)

    def pack(self, arrays, out=None):
        """Return arrays of lanes, shape (L, r, c), as blocks (n_blocks, r, width)."""
        n_rows = arrays.shape[1]
        if out is None:
            out = np.zeros((self.n_blocks, n_rows, self.width), arrays.dtype)
        slots = self.slots(out).transpose(0, 2, 1, 3)
        for block, views in enumerate(slots):
            own = arrays[block * self.n_slots : (block + 1) * self.n_slots]
            views[: len(own)] = own
        return out

    def unpack(self, blocks):
        """Return blocks (n_blocks, r, width) as arrays of lanes, a copy (L, r, c)."""
        slots = self.slots(blocks).transpose(0, 2, 1, 3)
        return slots.reshape(-1, *slots.shape[2:])[: self.n_lanes].copy()

    def by_slot(self, values, fill=0):
        """Return a value per lane, shape (L,), as an array (n_blocks, slots)."""
        values = np.asarray(values)
        out = np.full(self.n_blocks * self.n_slots, fill, values.dtype)
        out[: self.n_lanes] = values
        return out.reshape(self.n_blocks, self.n_slots)

    def by_lane(self, slots):
        """Return an array (n_blocks, slots, ...) as one of lanes (L, ...)."""
        return slots.reshape(-1, *slots.shape[2:])[: self.n_lanes]

    def by_column(self, values):
        """Return values per lane (..., L) as arrays (..., n_blocks, width).

        Unused columns are 0.
        """
        out = np.take(values, self._lane_of_column, axis=-1)
        if not self._is_full:
            out *= self._is_used
        return out

    def lane_sums(self, columns):
        """Return the sums over each lane's columns of an array (n_blocks, width)."""
        return self.by_lane(np.add.reduce(self.slots(columns), axis=2))
