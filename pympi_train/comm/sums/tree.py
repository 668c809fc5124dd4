"""A sum over V groups by a fixed binary tree, with bits independent of the ranks.

The leaves are the groups' blocks, numbered from 0. Node ``(k, i)`` is the sum of the
existing leaves from ``i 2^k`` up to, but not including, ``(i + 1) 2^k``: the sum of its
two halves ``(k - 1, 2 i)`` and ``(k - 1, 2 i + 1)``. A leaf may be absent. An absent
leaf is skipped, not added as zero, so it does not even change the sign of a zero.

A rank holds consecutive leaves. Alone it can add up the complete nodes in its range: at
most ``2 log2 V`` nodes, and one node if the numbers of ranks and leaves are powers of
two. The ranks exchange these nodes.
"""

import numpy as np

from pympi_train.backends.blocks import flat_blocks, quiet
from pympi_train.comm.checks import agreed_within
from pympi_train.comm.sums.by_slices import CHUNK, even_sizes
from pympi_train.errors import ConfigError
from pympi_train.flat.parts import even_cuts


def own_leaves(rank, size, n_leaves):
    """Return ``(first, stop)`` of the leaves of ``rank``: r V / P, rounded down."""
    return rank * n_leaves // size, (rank + 1) * n_leaves // size


def leaf_cuts(size, n_leaves):
    """Return the P + 1 cuts of the leaves by `own_leaves`."""
    return even_cuts(0, n_leaves, size, step=1)


def require_leaves(n_leaves, comm):
    """Raise ConfigError on every rank of ``comm`` unless each rank holds a leaf."""
    if comm.size > n_leaves:
        raise agreed_within(comm, too_few_leaves(n_leaves, comm.size))


def too_few_leaves(n_leaves, size):
    """Return the ConfigError for more ranks than leaves."""
    return ConfigError(
        f"[parallel] reduction exact: {size} ranks share {n_leaves} groups of rows, "
        f"and a rank needs one: set virtual_shards to {size} or more (as in the runs "
        f"that shall give the same bits), or use fewer ranks"
    )


def climb(node, n_leaves):
    """Return the highest node with the same leaves as ``node``.

    The parent has the same leaves as ``node`` if there is no sibling.
    """
    level, index = node
    while index and index % 2 == 0 and (index + 1) << level >= n_leaves:
        level, index = level + 1, index // 2
    return level, index


def root(n_leaves):
    """Return the node of all leaves."""
    return (n_leaves - 1).bit_length(), 0


class Forest:
    """Nodes in the order of their leaves, joined as soon as both halves are present.

    A Forest does not add. The caller adds the values that ``push`` returns.

    Parameters
    ----------
    n_leaves : int
        V, at least 1.

    Attributes
    ----------
    nodes : list of (int, int)
        Level and index of the nodes that are not joined yet.
    values : list
        Values of these nodes; None if all leaves of a node are absent.
    """

    def __init__(self, n_leaves):
        self._n_leaves = n_leaves
        self.nodes, self.values = [], []

    def push(self, node, value):
        """Add the next node; return the values that the caller has to add up.

        Parameters
        ----------
        node : (int, int)
            Its leaves follow the leaves of the node before.
        value : object or None
            None if all leaves of the node are absent.

        Returns
        -------
        list
            ``[a, b, ..., z]``: the caller replaces ``a`` by ``a + (b + (... + z))``. If
            the list has at most one value, there is nothing to add.
        """
        nodes, values = self.nodes, self.values
        node, chain = climb(node, self._n_leaves), [value]
        while node[1] % 2 and nodes and nodes[-1] == (node[0], node[1] - 1):
            nodes.pop()
            chain.append(values.pop())
            node = climb((node[0] + 1, node[1] // 2), self._n_leaves)
        chain = [v for v in reversed(chain) if v is not None]
        nodes.append(node)
        values.append(chain[0] if chain else None)
        return chain


def own_nodes(first, stop, n_leaves):
    """Return the nodes, (level, index), that leaves ``first`` to ``stop - 1`` join to.

    Examples
    --------
    >>> own_nodes(2, 5, 8)
    [(1, 1), (0, 4)]
    """
    forest = Forest(n_leaves)
    for leaf in range(first, stop):
        forest.push((0, leaf), None)
    return forest.nodes


@quiet
def add_chain(chain, out=None):
    """Write ``a + (b + (... + z))`` of a chain of blocks to ``out``, or to ``a``.

    The sum is computed in pieces that fit in cache, so that each block is read once.
    The last block is overwritten if there are more than two blocks.
    """
    first, *middle, last = chain
    out = first if out is None else out
    for piece in flat_blocks(first):
        total = last[piece]
        for block in reversed(middle):
            np.add(block[piece], total, out=total)
        np.add(first[piece], total, out=out[piece])


def total(leaves):
    """Return the sum of ``leaves``, shape (V, ...), by the tree; shape (...).

    For numbers that every rank has. An absent leaf is zero, and is added.
    """
    # A copy, with 0.0 in place of -0.0, as a sum over ranks gives.
    leaves = np.asarray(leaves) + 0.0
    while len(leaves) > 1:
        pairs = leaves[: len(leaves) // 2 * 2]
        joined = pairs[::2] + pairs[1::2]
        leaves = np.concatenate((joined, leaves[len(pairs) :]))
    return leaves[0]


@quiet
def add_rows(rows):
    """Return the sum of ``rows``, shape (P, n), of nodes of one width; overwrites them.

    The bits are those of the tree, in log2 P calls instead of P: for many ranks, that
    work in Python takes longer than the sum.
    """
    step = 1
    while step < len(rows):
        right = rows[step :: 2 * step]
        left = rows[:: 2 * step][: len(right)]
        np.add(left, right, out=left)
        step *= 2
    return rows[0]


class TreeSum:
    """The sum of the leaves of all ranks by the tree.

    Parameters
    ----------
    comm : MPI.Comm
        Has at most as many ranks as there are leaves.
    n_leaves : int
        V.
    chunk : int
        Number of elements combined at once.

    Attributes
    ----------
    first, stop : int
        The leaves of this rank.

    Notes
    -----
    A rank with ``k`` nodes (`own_nodes`) sends ``(k + 1) n (P - 1) / P`` elements, in
    ``k + 1`` messages per chunk to each other rank. Slices are exchanged directly as in
    `by_slices.sum_by_slices`, but are added in the order of the tree.
    """

    def __init__(self, comm, n_leaves, chunk=CHUNK):
        require_leaves(n_leaves, comm)
        self._comm, self._n_leaves, self._chunk = comm, n_leaves, chunk
        self._parts = None
        self.share_leaves(leaf_cuts(comm.size, n_leaves))

    def share_leaves(self, cuts):
        """Let each rank hold other leaves; the sums keep their bits.

        Parameters
        ----------
        cuts : sequence of int, length P + 1
            Rank r holds the leaves from ``cuts[r]`` up to ``cuts[r + 1]``, at least
            one. By default they are those of `leaf_cuts`. Equal on every rank.
        """
        ranges = list(zip(cuts, cuts[1:]))
        self.first, self.stop = ranges[self._comm.rank]
        widths = {stop - first for first, stop in ranges}
        width = widths.pop()
        self._is_even = not widths and width & (width - 1) == 0
        self._nodes = [own_nodes(*leaves, self._n_leaves) for leaves in ranges]
        self._starts = np.array(
            [index << level for nodes in self._nodes for level, index in nodes]
        )

    def sum(self, blocks, present, out):
        """Write the sum over the present leaves of all ranks to ``out``.

        Parameters
        ----------
        blocks : list of ndarray, shape (n,)
            Blocks of this rank's nodes with a present leaf, in order. Overwritten.
        present : ndarray of bool, shape (V,)
            Whether each leaf is present; the same on every rank.
        out : ndarray, shape (n,)
            May be one of ``blocks``. Zero if no leaf is present.

        Returns
        -------
        int
            Bytes that this rank sent.

        Notes
        -----
        Collective.
        """
        has = np.logical_or.reduceat(present, self._starts)
        if not has.any():
            out[:] = 0
            return 0
        # None: each rank has one node, all are present and of one width.
        nodes = None if self._is_even and has.all() else self._marked(has)
        if self._comm.size == 1:
            if blocks[0] is not out:
                out[:] = blocks[0]
            return 0
        sent = 0
        for start in range(0, out.size, self._chunk):
            part = slice(start, min(start + self._chunk, out.size))
            pieces = [block[part] for block in blocks]
            sent += self._sum_chunk(pieces, nodes, out[part])
        return sent * out.itemsize

    def _marked(self, has):
        """Return, for each rank, the list of (node, whether it is present)."""
        has = iter(has.tolist())
        return [[(node, next(has)) for node in of_rank] for of_rank in self._nodes]

    def _sum_chunk(self, blocks, nodes, out):
        """Sum one chunk; return the number of elements sent. Collective."""
        from mpi4py import MPI

        rank, size = self._comm.rank, self._comm.size
        sizes = even_sizes(out.size, size)
        starts = np.cumsum(sizes) - sizes
        own = slice(int(starts[rank]), int(starts[rank] + sizes[rank]))
        if nodes is None:
            parts, _ = self._scatter(blocks, np.ones(size, int), starts, sizes, out)
            parts[rank] = blocks[0][own]
            out[own] = add_rows(parts)
        else:
            counts = np.array([sum(has for _, has in of_rank) for of_rank in nodes])
            rows, ends = self._scatter(blocks, counts, starts, sizes, out)
            parts = [list(rows[a:b]) for a, b in zip(ends, ends[1:])]
            parts[rank] = [block[own] for block in blocks]
            _add_up(nodes, parts, self._n_leaves, out[own])
        self._comm.Allgatherv(MPI.IN_PLACE, [out, (sizes, starts)])
        n_own = int(sizes[rank])
        return len(blocks) * (out.size - n_own) + n_own * (size - 1)

    def _scatter(self, blocks, counts, starts, sizes, out):
        """Send slices of ``blocks``; return the received slices and each rank's first.

        ``counts`` has the number of present nodes of each rank.
        """
        rank, n_own = self._comm.rank, int(sizes[self._comm.rank])
        rows = np.concatenate(([0], np.cumsum(counts)))
        if self._parts is None or self._parts.size < rows[-1] * n_own:
            self._parts = np.empty(rows[-1] * n_own, out.dtype)
        parts = self._parts[: rows[-1] * n_own].reshape(rows[-1], n_own)
        for turn in range(counts.max()):  # a rank's first node, its second, ...
            mine = np.where(turn < len(blocks), sizes, 0)
            theirs = np.where(turn < counts, n_own, 0)
            mine[rank] = theirs[rank] = 0
            block = blocks[turn] if turn < len(blocks) else out
            self._comm.Alltoallv(
                [block, (mine, starts)],
                [parts, (theirs, (rows[:-1] + turn) * n_own)],
            )
        return parts, rows


def _add_up(nodes, parts, n_leaves, out):
    """Write the sum of ``parts``, the present nodes of all ranks, to ``out``."""
    forest = Forest(n_leaves)
    for of_rank, values in zip(nodes, parts):
        values = iter(values)
        for node, has in of_rank:
            chain = forest.push(node, next(values) if has else None)
            is_last = len(forest.nodes) == 1 and forest.nodes[0] == root(n_leaves)
            if len(chain) > 1:
                add_chain(chain, out if is_last else None)
            elif is_last:
                out[...] = forest.values[0]
