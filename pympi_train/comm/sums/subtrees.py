"""Which rank joins which part of the tree of `comm.sums.tree`, and who sends what."""

import numpy as np

from pympi_train.comm.sums.tree import own_nodes


def subtree_holders(cuts, n_leaves):
    """Return the width of the subtrees, and the rank that holds each of them.

    The tree has ``2^p`` subtrees of one width, where ``2^p`` is the largest power of
    two up to the number of ranks. The rank with a subtree's first leaf holds it, unless
    it holds one already. Ranks that are left hold the other subtrees.

    Parameters
    ----------
    cuts : ndarray of int, shape (P + 1,)
        Rank r has the leaves from ``cuts[r]`` up to ``cuts[r + 1]``, at least one.
    n_leaves : int
        V.

    Returns
    -------
    width : int
    holders : ndarray of int, shape (2^p,)
        Distinct.
    """
    n_ranks = len(cuts) - 1
    n_subtrees = 1 << (n_ranks.bit_length() - 1)
    width = (1 << (n_leaves - 1).bit_length()) // n_subtrees
    first_ranks = np.searchsorted(cuts, np.arange(0, n_leaves, width), "right") - 1
    found, subtrees = np.unique(first_ranks, return_index=True)
    holders, is_free = np.full(n_subtrees, -1), np.ones(n_ranks, bool)
    holders[subtrees], is_free[found] = found, False
    lacking = np.flatnonzero(holders < 0)
    holders[lacking] = np.flatnonzero(is_free)[: len(lacking)]
    return width, holders


class Subtrees:
    """The subtree that a rank holds, and the messages around it.

    Parameters
    ----------
    cuts, n_leaves
        See `subtree_holders`.
    rank : int

    Attributes
    ----------
    position : int
        Number of the subtree that this rank holds; -1 if it holds none.
    holders : list of int
        The rank that holds each subtree.
    own : list of ((int, int), int)
        Each of this rank's nodes, and the rank that holds the subtree it begins in.
    parts : list of ((int, int), int)
        The nodes that begin in this rank's subtree, in order, and the rank of each.
    giver : int
        The rank from which a rank without a subtree receives the sum.
    takers : list of int
        The ranks without a subtree that receive the sum from this rank.
    """

    def __init__(self, cuts, n_leaves, rank):
        self._n_leaves, cuts = n_leaves, np.asarray(cuts)
        self._width, holders = subtree_holders(cuts, n_leaves)
        positions = np.full(len(cuts) - 1, -1)
        positions[holders] = np.arange(len(holders))
        self.position, self.holders = int(positions[rank]), holders.tolist()
        self.own = [
            (node, self.holders[(node[1] << node[0]) // self._width])
            for node in own_nodes(int(cuts[rank]), int(cuts[rank + 1]), n_leaves)
        ]
        self.giver = self.holders[int(cuts[rank]) // self._width]
        self.parts, self.takers = self._arriving(cuts, positions)
        # (first subtree, number of subtrees) of nodes of several subtrees
        self._wide = [
            (index << level - below, 1 << level - below)
            for below in [(self._width - 1).bit_length()]
            for wide in np.flatnonzero(np.diff(cuts) > self._width).tolist()
            for level, index in own_nodes(*cuts[wide : wide + 2].tolist(), n_leaves)
            if level > below
        ]

    def _arriving(self, cuts, positions):
        first, end = (self._width * (self.position + more) for more in (0, 1))
        if not 0 <= first < self._n_leaves:
            return [], []
        parts, takers = [], []
        rank = int(np.searchsorted(cuts, first, "right")) - 1
        while rank < len(positions) and cuts[rank] < end:
            for node in own_nodes(*cuts[rank : rank + 2].tolist(), self._n_leaves):
                if first <= node[1] << node[0] < end:
                    parts.append((node, rank))
            if positions[rank] < 0 and cuts[rank] >= first:
                takers.append(rank)
            rank += 1
        return parts, takers

    def levels(self, present):
        """Return, for each level of halving, which nodes have a value.

        Parameters
        ----------
        present : ndarray of bool, shape (V,)

        Returns
        -------
        list of ndarray of bool
            Of 2^p subtrees, of 2^(p - 1) pairs of them, ..., of two halves of the tree.
            The value of a node of several subtrees is taken as that of the first.
        """
        starts = np.arange(0, self._n_leaves, self._width)
        has = np.zeros(len(self.holders), bool)
        has[: len(starts)] = np.logical_or.reduceat(present, starts)
        for first, number in self._wide:
            has[first] = has[first : first + number].any()
            has[first + 1 : first + number] = False
        found = []
        while len(has) > 1:
            found.append(has)
            has = has.reshape(-1, 2).any(axis=1)
        return found
