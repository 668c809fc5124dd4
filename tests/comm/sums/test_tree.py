"""The sum over leaves by one tree: the same bits whoever holds which leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.comm.checks import is_agreed
from pympi_train.comm.sums import tree, tree_sum
from pympi_train.errors import ConfigError

V = st.integers(1, 70)


def plain(node, leaves):
    """The value of a node by its definition; None where all leaves are absent."""
    level, index = node
    if level == 0:
        return leaves[index] if index < len(leaves) else None
    a, b = (plain((level - 1, 2 * index + half), leaves) for half in (0, 1))
    return b if a is None else a if b is None else a + b


def root(n_leaves):
    """The node of all leaves."""
    return (n_leaves - 1).bit_length(), 0


def span(node, n_leaves):
    level, index = node
    return index << level, min((index + 1) << level, n_leaves)


@given(n_leaves=V, data=st.data())
def test_nodes_of_a_range_are_few_and_fill_it(n_leaves, data):
    first = data.draw(st.integers(0, n_leaves))
    stop = data.draw(st.integers(first, n_leaves))
    nodes = tree.own_nodes(first, stop, n_leaves)
    ends = [first]
    for node in nodes:
        low, high = span(node, n_leaves)
        assert low == ends[-1] and high > low
        ends.append(high)
    assert ends[-1] == stop
    assert len(nodes) <= max(1, 2 * n_leaves.bit_length())
    if (first, stop) == (0, n_leaves):
        assert nodes == [root(n_leaves)]


@pytest.mark.parametrize("n_leaves, size", [(8, 1), (8, 2), (8, 4), (8, 8), (64, 16)])
def test_powers_of_two_send_one_node(n_leaves, size):
    for rank in range(size):
        leaves = tree.own_leaves(rank, size, n_leaves)
        assert len(tree.own_nodes(*leaves, n_leaves)) == 1


@given(n_leaves=V, data=st.data())
def test_ranks_hold_all_leaves(n_leaves, data):
    size = data.draw(st.integers(1, n_leaves))
    ranges = [tree.own_leaves(rank, size, n_leaves) for rank in range(size)]
    assert all(a < b for a, b in ranges)
    assert [0, *(b for _, b in ranges)] == [*(a for a, _ in ranges), n_leaves]


def folded(leaves, ranges):
    """The sum, after each range was folded on its own; leaves may be None."""
    n_leaves, top = len(leaves), tree.Forest(len(leaves))
    for first, stop in ranges:
        low = tree.Forest(n_leaves)
        for leaf in range(first, stop):
            value = leaves[leaf]
            chain = low.push((0, leaf), None if value is None else value.copy())
            if len(chain) > 1:
                tree.add_chain(chain)
        for node, value in zip(low.nodes, low.values):
            chain = top.push(node, value)
            if len(chain) > 1:
                tree.add_chain(chain)
    assert top.nodes == [root(n_leaves)]
    return top.values[0]


@given(n_leaves=V, seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_folding_in_parts_gives_the_bits_of_the_definition(n_leaves, seed, share):
    rng = np.random.default_rng(seed)
    leaves = [
        rng.standard_normal(3, dtype=np.float32) * np.float32(10.0) ** rng.integers(6)
        if rng.random() < share
        else None
        for _ in range(n_leaves)
    ]
    want = plain(root(n_leaves), leaves)
    cuts = sorted({0, n_leaves, *rng.integers(0, n_leaves + 1, 5).tolist()})
    for ranges in ([(0, n_leaves)], list(zip(cuts, cuts[1:]))):
        got = folded(leaves, ranges)
        assert (got is None) == (want is None)
        if want is not None:
            assert got.tobytes() == want.tobytes()


@given(n_leaves=V, seed=st.integers(0, 99))
def test_total_of_numbers(n_leaves, seed):
    leaves = np.random.default_rng(seed).standard_normal((n_leaves, 2))
    want = plain(root(n_leaves), list(leaves))
    assert tree.total(leaves).tobytes() == want.tobytes()


def test_a_negative_zero_stays_unless_it_is_added_to():
    minus = np.array([-0.0])
    assert np.signbit(folded([None, minus, None], [(0, 3)])).all()
    assert not np.signbit(tree.total(np.array([-0.0])))


def leaves_of(n_leaves, size, present):
    rng = np.random.default_rng(5)
    blocks = rng.standard_normal((n_leaves, size), dtype=np.float32)
    blocks *= np.float32(10.0) ** rng.integers(-3, 4, (n_leaves, 1))
    return [block if has else None for block, has in zip(blocks, present)]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "chunk, share", [(2**20, "even"), (40, "even"), (2**20, "last has most")]
)
@pytest.mark.parametrize("size", [1, 7, 103, 4096])
@pytest.mark.parametrize("n_leaves", [4, 6, 8, 13])
@pytest.mark.parametrize("which", ["all", "some", "one", "none"])
def test_sum_on_ranks(comm, n_leaves, size, chunk, share, which):
    if size == 4096 and chunk == 40:
        chunk = 1000
    present = np.full(n_leaves, which == "all")
    if which == "some":
        present = np.random.default_rng(n_leaves).random(n_leaves) < 0.6
    elif which == "one":
        present[n_leaves - 2] = True
    leaves = leaves_of(n_leaves, size, present)
    want = plain(root(n_leaves), leaves)

    summing = tree_sum.TreeSum(comm, n_leaves, chunk)
    if share != "even":
        summing.share_leaves([*range(comm.size), n_leaves])
    forest = tree.Forest(n_leaves)
    for leaf in range(summing.first, summing.stop):
        value = leaves[leaf]
        chain = forest.push((0, leaf), None if value is None else value.copy())
        if len(chain) > 1:
            tree.add_chain(chain)
    blocks = [value for value in forest.values if value is not None]
    out = blocks[0] if blocks and size % 2 else np.full(size, 7, np.float32)
    sent = summing.sum(blocks, present, out)
    assert out.tobytes() == (np.zeros_like(out) if want is None else want).tobytes()
    if want is None:
        assert sent == 0


@pytest.mark.mpi(min_size=2)
def test_more_ranks_than_leaves_is_refused_on_every_rank(comm):
    with pytest.raises(ConfigError, match=f"virtual_shards to {comm.size}") as caught:
        tree_sum.TreeSum(comm, comm.size - 1)
    assert is_agreed(caught.value, comm)
