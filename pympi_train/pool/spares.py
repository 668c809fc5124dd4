"""Free ranks for jobs that get one at a time."""

import heapq
from collections import Counter, defaultdict


class Spares:
    """The free ranks of a `Room`, given to jobs one by one.

    `give` takes the rank that ``room.choose(needs, 1, ranks)`` would return. It looks
    only at the nodes that could come next, in O(log P): with `choose`, P ranks for one
    job took P searches through P ranks.

    Parameters
    ----------
    room : Room
        Between calls, only this object takes ranks from it.
    jobs : dict of str to (Needs, list of int)
        What each job needs, and the ranks that it has.
    """

    def __init__(self, room, jobs):
        self._room, self._needs, self._own = room, {}, {}
        self._on_node = defaultdict(list)  # jobs with a rank there
        self._near, self._any = {}, {}  # heaps; their old entries are found by `_first`
        for name, (needs, ranks) in jobs.items():
            self._needs[name] = needs
            self._own[name] = Counter(room.nodes[rank] for rank in ranks)
            self._near[name] = []
            kind = _kind(needs)
            if kind not in self._any:
                sizes = room.sizes(needs)
                self._any[kind] = needs, [(n, node) for node, n in sizes.items()]
                heapq.heapify(self._any[kind][1])
            for node in self._own[name]:
                self._on_node[node].append(name)
                self._push_near(name, node)

    def give(self, name):
        """Take a rank for a job, and return it; None if no rank fits."""
        needs, own, room = self._needs[name], self._own[name], self._room
        node = self._first(
            self._near[name], lambda node: (-own[node], room.n_fitting(needs, node))
        )
        if node is None:  # from here on, the job has no rank on a node that fits
            heap = self._any[_kind(needs)][1]
            node = self._first(heap, lambda node: (room.n_fitting(needs, node),))
        if node is None:
            return None
        rank = room.fitting(needs, node)[0]
        room.take(needs, [rank])
        if not own[node]:
            self._on_node[node].append(name)
        own[node] += 1
        for other in self._on_node[node]:
            self._push_near(other, node)
        for needs, heap in self._any.values():
            n = room.n_fitting(needs, node)
            if n:
                heapq.heappush(heap, (n, node))
        return rank

    def _first(self, heap, now):
        """Return the first node of a heap that is as it was when pushed, or None."""
        while heap:
            *then, node = heap[0]
            if tuple(then) == now(node):
                return node
            heapq.heappop(heap)
        return None

    def _push_near(self, name, node):
        n = self._room.n_fitting(self._needs[name], node)
        if n:
            heapq.heappush(self._near[name], (-self._own[name][node], n, node))


def _kind(needs):
    """Return what decides how many ranks of a node fit."""
    return needs.gpus, needs.memory
