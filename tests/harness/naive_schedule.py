"""The planning of a pool in its obvious form, which looks at all ranks each time."""

import copy
from collections import Counter

from pympi_train.pool.schedule import plan_in, saved_by_one


class NaiveRoom:
    """Takes the place of `Room`."""

    def __init__(self, machine, free, running=()):
        self._machine, self.free = machine, set(free)
        self._memory = list(machine.memory)
        self._gpus = set()  # those in use
        for job in running:
            self._use(job.needs, job.ranks)

    def _use(self, needs, ranks):
        for rank in ranks:
            self._memory[self._machine.nodes[rank]] -= needs.memory
            if needs.gpus:
                self._gpus.add(self._machine.gpus[rank])

    def fit(self, needs):
        """Return the free ranks that could work for a job together, by node.

        Rank 0 comes last: while it trains, its program cannot submit jobs.
        """
        machine, fit, gpus = self._machine, {}, set(self._gpus)
        for rank in sorted(self.free, key=lambda rank: (rank == 0, rank)):
            node, gpu = machine.nodes[rank], machine.gpus[rank]
            of_node = fit.setdefault(node, [])
            if needs.gpus and (gpu is None or gpu in gpus):
                continue
            if needs.memory * (len(of_node) + 1) > self._memory[node]:
                continue
            of_node.append(rank)
            gpus.add(gpu)
        return fit

    def choose(self, needs, n_ranks, near=()):
        """Return what `Room.choose` does."""
        fit = self.fit(needs)
        if sum(map(len, fit.values())) < n_ranks:
            return None
        own = Counter(self._machine.nodes[rank] for rank in near)
        chosen = []
        while len(chosen) < n_ranks:
            n_left = n_ranks - len(chosen)
            # The node with the fewest ranks that suffice, or else with the most ranks.
            node = min(
                fit,
                key=lambda k: (
                    -own[k],
                    len(fit[k]) < n_left,
                    len(fit[k]) if len(fit[k]) >= n_left else -len(fit[k]),
                    k,
                ),
            )
            chosen += fit.pop(node)[:n_left]
        return chosen

    def sizes(self, needs):
        """Return how many ranks of each node could work for a job."""
        return {node: len(ranks) for node, ranks in self.fit(needs).items()}

    def take(self, needs, ranks):
        """Note that free ranks work for a job now."""
        self.free -= set(ranks)
        self._use(needs, ranks)

    def release(self, needs, ranks):
        """Note that ranks are free, which have worked for a job."""
        self.free |= set(ranks)
        for rank in ranks:
            self._memory[self._machine.nodes[rank]] += needs.memory
            if needs.gpus:
                self._gpus.discard(self._machine.gpus[rank])

    def copy(self):
        """Return a room whose ranks can be taken without a trace in this one."""
        return copy.deepcopy(self)


def naive_plan(machine, free, ready, running):
    """Return what `pool.schedule.plan` does."""
    room = NaiveRoom(machine, free, running.values())
    return plan_in(room, ready, running, _widen, _share)


def _widen(starting, ready, room):
    """Give free ranks to jobs that start, one after another to that with the fewest."""
    open_ones = set(starting)
    while open_ones and room.free:
        name = min(open_ones, key=lambda n: (len(starting[n]), ready[n].turn))
        needs, ranks = ready[name], starting[name]
        more = room.choose(needs, 1, ranks) if len(ranks) < needs.most else None
        if more is None:
            open_ones.remove(name)
            continue
        room.take(needs, more)
        starting[name] = ranks + more


def _share(found, running, room):
    """Give free ranks to jobs that run, one after another where it saves most time."""
    open_ones = list(found)
    while room.free:
        gains = {n: saved_by_one(running[n], len(found[n])) for n in open_ones}
        name = max(gains, key=gains.get, default=None)
        if name is None or gains[name] <= 0:
            break
        more = room.choose(running[name].needs, 1, found[name])
        if more is None:
            open_ones.remove(name)
            continue
        room.take(running[name].needs, more)
        found[name] += more
