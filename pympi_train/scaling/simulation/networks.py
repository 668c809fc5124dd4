"""Networks of nodes: seconds of messages that are sent at the same time.

A message takes ``latency + n max(flows / rate)`` seconds: the maximum is over the links
on its way, and messages that use a link at the same time share it evenly. Links work in
both directions at once. Ranks are placed on nodes in order.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fabric:
    """A network with a full switch in each group of nodes; between groups, no limit.

    Attributes
    ----------
    ranks_per_node : int
    nodes_per_group : int
        Nodes of a leaf switch or of a group.
    node_latency_s, node_bytes_per_s : float
        Of a message within a node; such messages do not slow each other.
    latency_s, bytes_per_s : float
        Of a message between two nodes of a group, and of a node's link.
    far_latency_s : float
        Added to messages between groups.
    """

    ranks_per_node: int = 64
    nodes_per_group: int = 32
    node_latency_s: float = 0.5e-6
    node_bytes_per_s: float = 5e9
    latency_s: float = 2e-6
    bytes_per_s: float = 12.5e9
    far_latency_s: float = 1e-6

    def seconds(self, sources, targets, n_bytes):
        """Return the seconds of messages that are sent at the same time.

        Parameters
        ----------
        sources, targets : ndarray of int, shape (m,)
            Ranks that send and receive each message.
        n_bytes : float
            Bytes of each message.

        Returns
        -------
        ndarray of float64, shape (m,)
        """
        node = sources // self.ranks_per_node, targets // self.ranks_per_node
        group = tuple(each // self.nodes_per_group for each in node)
        off, far = node[0] != node[1], group[0] != group[1]
        latencies_s = np.where(off, self.latency_s, self.node_latency_s)
        latencies_s += far * self.far_latency_s
        slowness = np.full(len(sources), 1 / self.node_bytes_per_s)
        slowness[off] = _flows(node, off)[off] / self.bytes_per_s
        between = self._between_groups(group, far)
        slowness[far] = np.maximum(slowness[far], between[far])
        return latencies_s + n_bytes * slowness

    def _between_groups(self, group, far):
        """Return seconds a byte on the links between groups, shape (m,)."""
        return np.zeros(len(far))


@dataclass(frozen=True)
class FatTree(Fabric):
    """A fat tree of two levels.

    Attributes
    ----------
    taper : float
        Rate of all links into a leaf switch divided by that of its links upwards; 1:
        full bisection.

    References
    ----------
    .. [1] C. Leiserson, "Fat-trees: universal networks for hardware-efficient
       supercomputing", IEEE Trans. Computers 34 (1985).
    """

    taper: float = 1.0

    def _between_groups(self, group, far):
        rate = self.nodes_per_group * self.bytes_per_s / self.taper
        return _flows(group, far) / rate


@dataclass(frozen=True)
class Dragonfly(Fabric):
    """A dragonfly with minimal routes: one link between each two groups.

    Attributes
    ----------
    pair_bytes_per_s : float
        Rate from a group to another one.

    References
    ----------
    .. [1] J. Kim, W. Dally, S. Scott and D. Abts, "Technology-driven,
       highly-scalable dragonfly topology", ISCA 2008.
    """

    pair_bytes_per_s: float = 50e9

    def _between_groups(self, group, far):
        pairs = group[0] * (int(group[1].max(initial=0)) + 1) + group[1]
        _, pair = np.unique(pairs, return_inverse=True)
        return np.bincount(pair, far)[pair] / self.pair_bytes_per_s


def _flows(ends, uses):
    """Return the messages on the busier of the two links that each one uses."""
    busiest = [np.bincount(end, uses)[end] for end in ends]
    return np.maximum(*busiest)
