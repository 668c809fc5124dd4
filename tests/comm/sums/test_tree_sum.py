"""The sum by the tree, on ranks that are threads of one process."""

import queue
import threading
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from mpi4py import MPI

from pympi_train.comm.sums import tree
from pympi_train.comm.sums.subtrees import Subtrees, subtree_holders
from pympi_train.comm.sums.tree_sum import TreeSum

LATE_S = 60  # a message that nobody sends


class Done:
    def Wait(self):
        pass


class Thread:
    """A rank whose messages go through queues; counts those that it sends."""

    def __init__(self, rank, size, boxes):
        self.rank, self.size, self.n_sent = rank, size, 0
        self._boxes = boxes

    def Isend(self, block, target, tag):
        self._boxes[self.rank, target].put(block.copy())
        self.n_sent += 1
        return Done()

    def Recv(self, block, source, tag):
        block[:] = self._boxes[source, self.rank].get(timeout=LATE_S)

    def Sendrecv(self, given, target, _, came, source, tag):
        if target != MPI.PROC_NULL:
            self.Isend(given, target, tag)
        if source != MPI.PROC_NULL:
            self.Recv(came, source, tag)


def own_sum(leaves, first, stop):
    """The present nodes of a rank, added up, as a training does."""
    forest = tree.Forest(len(leaves))
    for leaf in range(first, stop):
        value = leaves[leaf]
        chain = forest.push((0, leaf), None if value is None else value.copy())
        if len(chain) > 1:
            tree.add_chain(chain)
    return [value for value in forest.values if value is not None]


def summed(cuts, leaves, present, size, chunk):
    """Return each rank's sum, and (elements, messages) that it sent."""
    n_ranks, boxes = len(cuts) - 1, defaultdict(queue.Queue)
    for pair in np.ndindex(n_ranks, n_ranks):
        boxes[pair]  # made here, not by several threads at once
    found, errors = [None] * n_ranks, []

    def run(rank):
        try:
            comm = Thread(rank, n_ranks, boxes)
            summing = TreeSum(comm, len(leaves), chunk)
            summing.share_leaves(cuts)
            blocks = own_sum(leaves, cuts[rank], cuts[rank + 1])
            # Some ranks write the sum to one of their blocks, the last or the first.
            out = np.full(size, 7, np.float32)
            if blocks and rank % 3:
                out = blocks[-(rank % 2)]
            sent = summing.sum(blocks, present, out)
            found[rank] = out, sent, comm.n_sent
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def made(n_leaves, size, present, seed):
    rng = np.random.default_rng(seed)
    blocks = rng.standard_normal((n_leaves, size), dtype=np.float32)
    blocks *= np.float32(10.0) ** rng.integers(-3, 4, (n_leaves, 1))
    return [block if has else None for block, has in zip(blocks, present)]


def drawn_cuts(n_ranks, n_leaves, seed):
    """Even cuts, or any with at least one leaf for each rank, the last with many."""
    if seed % 2:
        return tree.leaf_cuts(n_ranks, n_leaves)
    rng = np.random.default_rng(seed)
    inner = rng.permutation(np.arange(1, rng.integers(n_ranks, n_leaves + 1)))
    return [0, *sorted(inner[: n_ranks - 1].tolist()), n_leaves]


# A message that is missing takes LATE_S: it is not searched for simpler cases.
@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    n_ranks=st.integers(2, 19),
    more=st.integers(0, 40),
    size=st.sampled_from([1, 2, 7, 33]),
    chunk=st.sampled_from([5, 1000]),
    share=st.sampled_from([0.1, 0.6, 1.0]),
    seed=st.integers(0, 99),
)
@example(n_ranks=8, more=33, size=2, chunk=5, share=0.6, seed=0)
def test_any_ranks_get_the_bits_of_the_tree(n_ranks, more, size, chunk, share, seed):
    n_leaves = n_ranks + more
    present = np.random.default_rng(seed).random(n_leaves) < share
    present[seed % n_leaves] = True
    leaves = made(n_leaves, size, present, seed)
    total = tree.Forest(n_leaves)
    for leaf, value in enumerate(leaves):
        chain = total.push((0, leaf), None if value is None else value.copy())
        if len(chain) > 1:
            tree.add_chain(chain)
    cuts = drawn_cuts(n_ranks, n_leaves, seed)
    for out, _, _ in summed(cuts, leaves, present, size, chunk):
        assert out.tobytes() == total.values[0].tobytes()


@given(n_ranks=st.integers(1, 300), more=st.integers(0, 1000), seed=st.integers(0, 9))
def test_every_subtree_has_a_holder_of_its_own(n_ranks, more, seed):
    n_leaves = n_ranks + more
    cuts = np.array(drawn_cuts(n_ranks, n_leaves, seed))
    width, holders = subtree_holders(cuts, n_leaves)
    assert len(set(holders.tolist())) == len(holders) > n_ranks / 2
    assert set(holders.tolist()) <= set(range(n_ranks))
    if seed % 2:  # even: each is held by the rank with its first leaf
        for first, holder in zip(range(0, n_leaves, width), holders):
            assert cuts[holder] <= first < cuts[holder + 1]


@settings(max_examples=300, deadline=None)
@given(n_ranks=st.integers(2, 40), more=st.integers(0, 200), seed=st.integers(0, 999))
def test_a_subtree_has_a_value_if_a_present_node_begins_in_it(n_ranks, more, seed):
    n_leaves = n_ranks + more
    cuts = drawn_cuts(n_ranks, n_leaves, seed)
    present = np.random.default_rng(seed).random(n_leaves) < (0.05, 0.6, 1.0)[seed % 3]
    width, holders = subtree_holders(np.array(cuts), n_leaves)
    want = np.zeros(len(holders), bool)
    for first, stop in zip(cuts, cuts[1:]):
        for level, index in tree.own_nodes(first, stop, n_leaves):
            leaves = slice(index << level, (index + 1) << level)
            want[leaves.start // width] |= present[leaves].any()
    assert Subtrees(cuts, n_leaves, 0).levels(present)[0].tolist() == want.tolist()


def test_a_node_of_several_subtrees_counts_once():
    # Rank 0 has three of four subtrees, of four leaves: one node of two, and one.
    found = Subtrees([0, 12, 13, 14, 16], 16, 0)
    assert [node for node, _ in found.own] == [(3, 0), (2, 2)]
    first, second = found.levels(np.ones(16, bool))
    assert first.tolist() == [True, False, True, True]
    assert second.tolist() == [True, True]
    # The last rank's node has a subtree of eight leaves, and the only leaf of another.
    found = Subtrees([0, 5, 10, 15, 20, 25, 28, 32, 41], 41, 7)
    assert [node for node, _ in found.own] == [(5, 1)]
    assert found.levels(np.ones(41, bool))[0].tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize("n_ranks, n_leaves", [(2, 2), (4, 8), (8, 8), (16, 64)])
def test_whole_subtrees_are_summed_in_two_log_p_messages(n_ranks, n_leaves):
    cuts, size = tree.leaf_cuts(n_ranks, n_leaves), 64
    leaves = made(n_leaves, size, np.ones(n_leaves, bool), 0)
    for _, sent, messages in summed(cuts, leaves, np.ones(n_leaves, bool), size, size):
        assert messages == 2 * (n_ranks.bit_length() - 1)
        assert sent == 2 * size * (n_ranks - 1) // n_ranks * 4


def test_a_thousand_ranks_with_1024_leaves_send_few_messages():
    cuts = tree.leaf_cuts(1000, 1024)
    for rank in range(0, 1000, 37):
        found = Subtrees(cuts, 1024, rank)
        n_sent = sum(holder != rank for _, holder in found.own) + len(found.takers)
        assert n_sent <= 2 and len(found.parts) <= 3
