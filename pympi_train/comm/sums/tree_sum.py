"""The sum over ranks by the tree of `comm.sums.tree`: recursive halving."""

import numpy as np

from pympi_train.backends.blocks import quiet
from pympi_train.comm.sums.by_slices import CHUNK
from pympi_train.comm.sums.subtrees import Subtrees
from pympi_train.comm.sums.tree import Forest, add_chain, leaf_cuts, require_leaves
from pympi_train.comm.watch.guard import collective, unrecorded

TAG = 27  # of its messages; nothing else on the communicator uses it


class TreeSum:
    """The sum of the leaves of all ranks by the tree.

    Ranks that hold no subtree, or only a part of it, send their nodes to its holder
    (`Subtrees`). Then neighbours in the tree exchange halves: each holder has the sum
    of one subtree of width w, then a half of the sum of width 2 w, then a quarter of
    width 4 w. At the end it has a slice of the whole sum. The slices are gathered in
    the reverse order [1]_, and ranks that hold no subtree receive the sum.

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
    A rank that holds one whole subtree sends ``2 n (P - 1) / P`` elements in
    ``2 log2 P`` messages per chunk. If consecutive ranks are on one node, only the last
    and smallest messages leave it: a node of R ranks sends at most ``2 n`` elements to
    others. A rank that holds no subtree, or a part of one, sends ``n`` for each of its
    nodes; with P and V powers of two there is no such rank.

    References
    ----------
    .. [1] R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective
       Communication Operations in MPICH", Int. J. High Perform. Comput. Appl. 19
       (2005), section 4.5.
    """

    def __init__(self, comm, n_leaves, chunk=CHUNK):
        require_leaves(n_leaves, comm)
        self._comm, self._n_leaves, self._chunk = comm, n_leaves, chunk
        names = "Isend", "Recv", "Sendrecv"
        self._isend, self._recv, self._sendrecv = (unrecorded(comm, n) for n in names)
        is_guarded = getattr(comm, "row", None) is not None
        self._call = _recorded if is_guarded else _call
        self._scratch, self._received = [], None
        self.share_leaves(leaf_cuts(comm.size, n_leaves))

    def share_leaves(self, cuts):
        """Let each rank hold other leaves; the sums keep their bits.

        Parameters
        ----------
        cuts : sequence of int, length P + 1
            Rank r holds the leaves from ``cuts[r]`` up to ``cuts[r + 1]``, at least
            one. By default they are those of `leaf_cuts`. Equal on every rank.
        """
        rank = self._comm.rank
        self.first, self.stop = int(cuts[rank]), int(cuts[rank + 1])
        self._tree = Subtrees(cuts, self._n_leaves, rank)

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
        if not present.any():
            out[:] = 0
            return 0
        if self._comm.size == 1:
            if blocks[0] is not out:
                out[:] = blocks[0]
            return 0
        own = [has_leaf(node, present) for node, _ in self._tree.own]
        parts = [has_leaf(node, present) for node, _ in self._tree.parts]
        levels, sent = self._tree.levels(present), 0
        for start in range(0, out.size, self._chunk):
            part = slice(start, min(start + self._chunk, out.size))
            pieces = (block[part] for block in blocks)
            mine = [next(pieces) if has else None for has in own]
            made_of = self._sum_chunk, mine, parts, levels
            sent += self._call(self._comm, out[part], *made_of)
        return sent * out.itemsize

    def _sum_chunk(self, out, blocks, parts, levels):
        """Sum one chunk; return the number of elements sent.

        ``blocks`` has None for a node without a present leaf; ``parts`` tells which of
        the nodes of this rank's subtree have one.
        """
        tree, requests, kept = self._tree, [], []
        for (_, holder), block in zip(tree.own, blocks):
            if holder == self._comm.rank:
                kept.append(block)
            elif block is not None:
                requests.append(self._isend(block, holder, TAG))
        sent = len(requests) * out.size
        value = self._fold(kept, parts, out)
        for request in requests:
            request.Wait()
        if tree.position < 0:
            self._recv(out, tree.giver, TAG)
            return sent
        path = self._path(out.size)
        sent += self._halve(value, path, levels, out) + self._double(path, out)
        requests = [self._isend(out, taker, TAG) for taker in tree.takers]
        for request in requests:
            request.Wait()
        return sent + len(requests) * out.size

    def _fold(self, kept, parts, out):
        """Return the sum of this rank's subtree, or None if it has no present leaf."""
        forest, kept, n_used = Forest(self._n_leaves), iter(kept), 0
        for (node, rank), has in zip(self._tree.parts, parts):
            if rank == self._comm.rank:
                block = next(kept)
            elif has:
                block = self._spare(n_used, out)
                self._recv(block, rank, TAG)
                n_used += 1
            else:
                block = None
            chain = forest.push(node, block)
            if len(chain) > 1:
                add_chain(chain)
        return forest.values[0] if forest.values else None

    def _path(self, size):
        """Return (partner, whether it is to the left, kept, given) of each halving."""
        tree, found, whole = self._tree, [], slice(0, size)
        for level in range(len(tree.holders).bit_length() - 1):
            partner = tree.holders[tree.position ^ 1 << level]
            right = bool(tree.position >> level & 1)
            kept, given = halves(whole)[:: -1 if right else 1]
            found.append((partner, right, kept, given))
            whole = kept
        return found

    @quiet
    def _halve(self, value, path, levels, out):
        """Write this rank's slice of the sum; return the number of elements sent."""
        sent = 0
        for level, (partner, right, kept, given) in enumerate(path):
            has = levels[level][(self._tree.position >> level) ^ 1]
            came = None
            if has:
                came = out[kept] if value is None else self._half(kept, out)
            gives = None if value is None else value[given]
            sent += self._exchange(partner, gives, came)
            if value is None:
                value = out if has else None
            elif has:
                where = out if level == len(path) - 1 else value
                np.add(*(value[kept], came)[:: -1 if right else 1], out=where[kept])
                value = where
        own = path[-1][2]
        if value is not out:
            out[own] = value[own]
        return sent

    def _double(self, path, out):
        """Gather the slices of all holders; return the number of elements sent."""
        return sum(
            self._exchange(partner, out[kept], out[given])
            for partner, _, kept, given in reversed(path)
        )

    def _exchange(self, partner, given, came):
        """Send ``given`` and receive ``came``, unless None; return what was sent."""
        from mpi4py import MPI

        to = from_ = partner
        if given is None or not given.size:
            given, to = None, MPI.PROC_NULL
        if came is None or not came.size:
            came, from_ = None, MPI.PROC_NULL
        self._sendrecv(given, to, TAG, came, from_, TAG)
        return 0 if given is None else given.size

    def _spare(self, index, out):
        """Return the scratch block ``index``, like ``out``."""
        if len(self._scratch) == index:
            self._scratch.append(np.empty_like(out))
        if self._scratch[index].size < out.size:
            self._scratch[index] = np.empty_like(out)
        return self._scratch[index][: out.size]

    def _half(self, kept, out):
        """Return scratch for a half of ``out`` that is received."""
        if self._received is None or 2 * self._received.size < out.size:
            self._received = np.empty((out.size + 1) // 2, out.dtype)
        return self._received[: kept.stop - kept.start]


def _call(comm, out, function, *args):
    return function(out, *args)


_recorded = collective("Allreduce")(_call)


def has_leaf(node, present):
    """Return whether a leaf of ``node`` is present."""
    level, index = node
    return bool(present[index << level : (index + 1) << level].any())


def halves(part):
    """Return both halves of a slice of consecutive elements."""
    middle = (part.start + part.stop) // 2
    return slice(part.start, middle), slice(middle, part.stop)
