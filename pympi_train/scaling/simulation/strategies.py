"""A step of each strategy on simulated ranks: the clocks of its ranks after it."""

import numpy as np

from pympi_train.errors import ConfigError
from pympi_train.scaling.simulation.rounds import Collectives, advance, queued

CONTROL_BYTES = 32  # of `pympi_train.comm.control.Control`
SUM_BYTES_PER_S = 5e9  # of gradients read by a rank that adds them


class SimulatedStep:
    """The steps of one strategy.

    Parameters
    ----------
    network : Fabric
    n_ranks : int
        Ranks of the job, servers not among them.
    n_bytes : int
        Bytes of the gradient.
    control_bytes : int
        Bytes of the control message.
    """

    def __init__(self, network, n_ranks, n_bytes, control_bytes=CONTROL_BYTES):
        self._network, self._n_bytes, self.size = network, n_bytes, n_ranks
        self._world = Collectives(network, np.arange(n_ranks))
        self._rounds = [*self._world.allreduce(control_bytes), *self._exchange()]

    def exchange(self, clocks_s, index):
        """Return the clocks after the exchanges of step ``index``, shape (P,)."""
        return advance(clocks_s, self._rounds)

    def _exchange(self):
        """Return the rounds of the gradient."""
        return self._world.allreduce(self._n_bytes)


class SimulatedAllreduce(SimulatedStep):
    """Whole replicas: one sum of the gradient."""


class SimulatedSharded(SimulatedStep):
    """Sharded parameters: reduce-scatter of gradients, allgather of parameters."""

    def _exchange(self):
        scatter = self._world.reduce_scatter(self._n_bytes)
        return scatter + self._world.allgather(self._n_bytes)


class SimulatedHierarchical(SimulatedStep):
    """One replica a node: sums in memory, and between nodes by slices.

    Ranks must fill their nodes; slice r of R is summed by the ranks r of all nodes, at
    the same time.
    """

    def __init__(self, network, n_ranks, n_bytes):
        self._per_node = min(network.ranks_per_node, n_ranks)
        if n_ranks % self._per_node:
            raise ConfigError(
                f"strategy hierarchical: expected a multiple of {self._per_node} "
                f"ranks, got {n_ranks}: simulate whole nodes"
            )
        super().__init__(network, n_ranks, n_bytes)
        self._n_control = len(self._world.allreduce(CONTROL_BYTES))

    def _exchange(self):
        ranks = np.arange(self.size).reshape(-1, self._per_node)
        across = Collectives(self._network, ranks.T)
        return across.allreduce(self._n_bytes / self._per_node)

    def exchange(self, clocks_s, index):
        clocks_s = advance(clocks_s, self._rounds[: self._n_control])
        # Each rank reads its slice of the node's R gradients: n bytes.
        clocks_s = self._meet(clocks_s) + self._n_bytes / SUM_BYTES_PER_S
        return self._meet(advance(clocks_s, self._rounds[self._n_control :]))

    def _meet(self, clocks_s):
        """Return the clocks after a barrier of each node."""
        nodes = clocks_s.reshape(-1, self._per_node)
        barrier_s = self._network.node_latency_s if self._per_node > 1 else 0.0
        return np.repeat(nodes.max(axis=1) + barrier_s, self._per_node)


class SimulatedLocal(SimulatedStep):
    """A sum of the parameters after every ``period`` steps, none in the others."""

    def __init__(self, network, n_ranks, n_bytes, period=8):
        super().__init__(network, n_ranks, n_bytes)
        self._period = period

    def exchange(self, clocks_s, index):
        if (index + 1) % self._period:
            return clocks_s
        return super().exchange(clocks_s, index)


class SimulatedServer(SimulatedStep):
    """Servers that each own a slice: every rank sends to, and receives from, each.

    A server takes one message after the other at the rate of its link. It answers when
    it has all gradients of the step (staleness 0). All servers see the same arrivals,
    so one is simulated; a rank's own link sends to the servers one after the other.
    """

    def __init__(self, network, n_ranks, n_bytes, n_servers=1):
        super().__init__(network, n_ranks, n_bytes)
        slice_bytes = n_bytes / n_servers
        self._latency_s = network.latency_s
        self._service_s = slice_bytes / network.bytes_per_s
        per_link = min(network.ranks_per_node, n_ranks)
        self._send_s = n_bytes * per_link / network.bytes_per_s

    def exchange(self, clocks_s, index):
        # The last slice arrives when the rank's link has sent all of them.
        waits_s = max(self._send_s - self._service_s, 0.0)
        arrivals_s = clocks_s + self._latency_s + waits_s
        ends_s = queued(arrivals_s, self._service_s)
        answers_s = self._service_s * np.arange(1, self.size + 1)
        return ends_s.max() + self._latency_s + answers_s

    def _exchange(self):
        return []


class SimulatedExact(SimulatedStep):
    """The exact sum by recursive halving, after a long control message.

    Parameters
    ----------
    network, n_ranks, n_bytes
        As for `SimulatedStep`.
    n_leaves : int, optional
        Groups of rows V; by default as many as ranks.

    Notes
    -----
    The control message has three float64 for each group. The blocks of 2^20 elements
    that are summed one after the other are simulated as one.
    """

    def __init__(self, network, n_ranks, n_bytes, n_leaves=None):
        control_bytes = 8 * (3 * (n_leaves or n_ranks) + 2)
        super().__init__(network, n_ranks, n_bytes, control_bytes)

    def _exchange(self):
        return self._world.halving_doubling(self._n_bytes)


STRATEGIES = {
    "allreduce": SimulatedAllreduce,
    "sharded": SimulatedSharded,
    "hierarchical": SimulatedHierarchical,
    "local": SimulatedLocal,
    "server": SimulatedServer,
    "exact": SimulatedExact,
}
