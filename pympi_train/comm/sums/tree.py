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
