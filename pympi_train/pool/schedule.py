"""Which ranks work for which job: pure functions of what is known now."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from pympi_train.errors import ConfigError

GB = 1e9  # bytes
COST_S = 0.5  # of a change of ranks, until one was measured
WORTH = 2.0  # times its cost, which a change has to save
USELESS = 0.97  # of the time of a step on fewer ranks: more ranks do not help


@dataclass(frozen=True)
class Machine:
    """The ranks of a pool.

    Attributes
    ----------
    nodes : list of int
        The node of each rank.
    gpus : list of (str or None)
        The GPU of each rank; ranks may have the same one.
    memory : list of float
        Bytes that jobs may use on each node.
    """

    nodes: list
    gpus: list
    memory: list

    @property
    def n_ranks(self):
        return len(self.nodes)


class Needs(NamedTuple):
    """What a job needs to run.

    Attributes
    ----------
    least, most : int
        Ranks on which it can run.
    priority : int
        The higher one goes first.
    number : int
        The lower one goes first, of equal priority.
    gpus : int
        1 if each of its ranks needs a GPU of its own, else 0.
    memory : float
        Bytes that each of its ranks needs.
    """

    least: int
    most: int
    priority: int = 0
    number: int = 0
    gpus: int = 0
    memory: float = 0.0

    @property
    def turn(self):
        """Sort jobs by this to know whose turn it is."""
        return -self.priority, self.number


@dataclass
class Running:
    """A job that runs.

    Attributes
    ----------
    needs : Needs
    ranks : list of int
        In the order of its communicator, the coming ones included.
    is_changing : bool
        Whether ranks are joining or leaving.
    steps_left : float or None
        None: not known yet.
    step_s : dict of int to float
        Seconds of a step by number of ranks, as measured.
    exchange : float
        Share of a step that does not become shorter with more ranks.
    cost_s : float
        Seconds of a change of ranks.
    """

    needs: Needs
    ranks: list
    is_changing: bool = False
    steps_left: float | None = None
    step_s: dict = field(default_factory=dict)
    exchange: float = 0.0
    cost_s: float = COST_S

    def seconds_left(self, n_ranks):
        """Return the estimated seconds until the end on ``n_ranks`` ranks, or None.

        A step on q ranks takes what was measured; else, from p ranks whose step takes t
        with the share e of exchange, t ((1 - e) p / q + e).
        """
        if self.steps_left is None or not self.step_s:
            return None
        if n_ranks in self.step_s:
            return self.steps_left * self.step_s[n_ranks]
        near = min(self.step_s, key=lambda p: (abs(p - n_ranks), p))
        share = (1 - self.exchange) * near / n_ranks + self.exchange
        return self.steps_left * self.step_s[near] * share

    @property
    def most_useful(self):
        """The number of ranks beyond which steps were not shorter when tried."""
        sizes = sorted(self.step_s)
        for fewer, more in zip(sizes, sizes[1:]):
            if self.step_s[more] > USELESS * self.step_s[fewer]:
                return max(fewer, self.needs.least)
        return self.needs.most


class Room:
    """The free ranks, GPUs and memory of a machine.

    Parameters
    ----------
    machine : Machine
    free : iterable of int
        Ranks without work.
    running : iterable of Running
    """

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
        """Return ``n_ranks`` free ranks for a job, on as few nodes as possible.

        Parameters
        ----------
        needs : Needs
        n_ranks : int
        near : sequence of int
            Ranks that the job has already; ranks of their nodes go first.

        Returns
        -------
        list of int or None
            None if there are not enough.
        """
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

    def take(self, needs, ranks):
        """Note that free ranks work for a job now."""
        self.free -= set(ranks)
        self._use(needs, ranks)


def require_room(machine, needs, name):
    """Raise ConfigError if a job can never start, even on the empty machine."""
    empty = Room(machine, range(machine.n_ranks))
    if empty.choose(needs, needs.least) is None:
        raise ConfigError(
            f"job {name}: there is no room for {needs.least} of its ranks, even on the "
            "empty machine: lower its memory_gb, gpus or min_ranks"
        )


def plan(machine, free, ready, running):
    """Return the ranks of the jobs that are to start, and of those that are to change.

    Parameters
    ----------
    machine : Machine
    free : iterable of int
        Ranks without work.
    ready : dict of str to Needs
        Jobs that may start.
    running : dict of str to Running

    Returns
    -------
    (dict, dict)
        Lists of ranks, by name. A job that changes keeps its first ranks: it loses its
        last ones, or gets others behind them.

    Notes
    -----
    Jobs start in turn, on the least number of ranks, and none overtakes a job that
    waits for more ranks. If jobs that run have more ranks than they need, and it is not
    less urgent than they are, it gets those. Ranks for which no job waits go to jobs
    that start now, evenly, then to those that run, where they save most time.
    """
    room = Room(machine, free, running.values())
    starting, waiting = {}, None
    for name, needs in sorted(ready.items(), key=lambda item: item[1].turn):
        ranks = room.choose(needs, needs.least)
        if ranks is None:
            waiting = needs
            break
        room.take(needs, ranks)
        starting[name] = ranks
    if waiting is not None:
        changing = _give_back(waiting, room, running)
        if changing is not None:
            return starting, changing
    else:
        _widen(starting, ready, room)
    return starting, _grow(room, running)


def _give_back(waiting, room, running):
    """Return which jobs lose ranks so that a waiting one can start.

    None if that does not suffice: then it has to wait for the end of a job.
    """
    n_missing = waiting.least - sum(map(len, room.fit(waiting).values()))
    coming, changing = False, {}
    order = sorted(running.items(), key=lambda item: item[1].needs.turn, reverse=True)
    for name, job in order:
        n_spare = len(job.ranks) - job.needs.least
        if n_missing <= 0:
            break
        if n_spare <= 0 or job.needs.priority > waiting.priority:
            continue
        n_taken = min(n_spare, n_missing)
        n_missing -= n_taken
        if job.is_changing:
            coming = True  # look again when it has changed
        else:
            changing[name] = job.ranks[: len(job.ranks) - n_taken]
    return changing if n_missing <= 0 and (changing or coming) else None


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


def _grow(room, running):
    """Give free ranks to jobs that run, one after another where it saves most time."""
    found = {name: list(job.ranks) for name, job in running.items()}
    before = {name: len(ranks) for name, ranks in found.items()}
    while room.free:
        gains = {name: _gain(running[name], len(found[name])) for name in found}
        name = max(gains, key=gains.get, default=None)
        if name is None or gains[name] <= 0:
            break
        more = room.choose(running[name].needs, 1, found[name])
        if more is None:
            del found[name]
            continue
        room.take(running[name].needs, more)
        found[name] += more
    return {
        name: ranks
        for name, ranks in found.items()
        if len(ranks) > before[name] and _is_worth_it(running[name], len(ranks))
    }


def _gain(job, n_ranks):
    """Return the seconds that one more rank than ``n_ranks`` would save."""
    if job.is_changing or n_ranks >= min(job.needs.most, job.most_useful):
        return 0.0
    now_s, then_s = job.seconds_left(n_ranks), job.seconds_left(n_ranks + 1)
    return 0.0 if now_s is None else now_s - then_s


def _is_worth_it(job, n_ranks):
    saved_s = job.seconds_left(len(job.ranks)) - job.seconds_left(n_ranks)
    return saved_s > WORTH * job.cost_s
