"""Messages on networks: latencies by distance, and links that messages share."""

import numpy as np
import pytest

from pympi_train.scaling.simulation.networks import Dragonfly, Fabric, FatTree

SHAPE = {"ranks_per_node": 2, "nodes_per_group": 2, "node_latency_s": 1.0}
SHAPE |= {"node_bytes_per_s": 10.0, "latency_s": 2.0, "bytes_per_s": 4.0}
SHAPE |= {"far_latency_s": 5.0}


def obvious(network, pairs, n_bytes):
    """Return the seconds of messages by counting, link by link."""

    def places(rank):
        node = rank // network.ranks_per_node
        return node, node // network.nodes_per_group

    found = []
    for a, b in pairs:
        (node_a, group_a), (node_b, group_b) = places(a), places(b)
        if node_a == node_b:
            found.append(network.node_latency_s + n_bytes / network.node_bytes_per_s)
            continue
        off = [(places(c), places(d)) for c, d in pairs]
        off = [(c, d) for c, d in off if c[0] != d[0]]
        leaving = sum(c[0] == node_a for c, _ in off)
        flows = max(leaving, sum(d[0] == node_b for _, d in off))
        slowness, latency = flows / network.bytes_per_s, network.latency_s
        if group_a != group_b:
            latency += network.far_latency_s
            far = [(c[1], d[1]) for c, d in off if c[1] != d[1]]
            if isinstance(network, FatTree):
                up = sum(c == group_a for c, _ in far)
                down = sum(d == group_b for _, d in far)
                rate = network.nodes_per_group * network.bytes_per_s / network.taper
                slowness = max(slowness, max(up, down) / rate)
            if isinstance(network, Dragonfly):
                shared = far.count((group_a, group_b))
                slowness = max(slowness, shared / network.pair_bytes_per_s)
        found.append(latency + n_bytes * slowness)
    return found


@pytest.mark.parametrize(
    "network",
    [
        Fabric(**SHAPE),
        FatTree(taper=4.0, **SHAPE),
        Dragonfly(pair_bytes_per_s=1.5, **SHAPE),
    ],
)
@pytest.mark.parametrize("shift", [1, 2, 3, 5, 8, 15])
def test_messages_take_what_counting_each_link_gives(network, shift):
    ranks = np.arange(16)
    targets = (ranks * 3 + shift) % 16
    got = network.seconds(ranks, targets, 100.0)
    want = obvious(network, list(zip(ranks, targets)), 100.0)
    assert got.tolist() == pytest.approx(want)


def test_a_narrower_tree_is_not_faster():
    ranks = np.arange(16)
    times = [
        FatTree(taper=taper, **SHAPE).seconds(ranks, (ranks + 8) % 16, 100.0)
        for taper in (1.0, 2.0, 8.0)
    ]
    assert (times[0] <= times[1]).all() and (times[1] < times[2]).all()
