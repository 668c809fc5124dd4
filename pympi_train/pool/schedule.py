"""Which ranks work for which job: pure functions of what is known now."""

import heapq
from dataclasses import dataclass, field

from pympi_train.pool.room import Needs, Room
from pympi_train.pool.spares import Spares

COST_S = 0.5  # of a change of ranks, until one was measured
WORTH = 2.0  # times its cost, which a change has to save
USELESS = 0.97  # of the time of a step on fewer ranks: more ranks do not help


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
    has_begun : bool
        Whether it has a run directory of its own.
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
    has_begun: bool = False
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
    that start now, evenly, then to those that run, where they save most time. How many
    ranks each job gets is settled before which ones.
    """
    room = Room(machine, free, running.values())
    return plan_in(room, ready, running, _widen, _share)


def plan_in(room, ready, running, widen, share):
    """Return what `plan` does.

    Parameters
    ----------
    room : Room
    ready, running : dict
        As for `plan`.
    widen, share : callable
        `_widen` and `_share`, or what gives the same ranks.
    """
    empty, starting, waiting = room.copy(), {}, None
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
        widen(starting, ready, room)
        wanted = {name: (ready[name], starting[name], ()) for name in starting}
        starting, room = _gather(empty, wanted) or (starting, room)
    return starting, _grow(room, running, share)


def _gather(room, wanted):
    """Return as many ranks as were found one by one, each job's on few nodes.

    Parameters
    ----------
    room : Room
        Without the ranks that were found. It is not changed.
    wanted : dict
        By name of a job: (needs, ranks that were found, ranks that it has already).

    Returns
    -------
    (dict, Room) or None
        Lists of ranks by name, and the room that is left. None if the jobs do not fit
        in this order, that with most ranks first.
    """
    room, chosen = room.copy(), {}

    def order(item):
        needs, found, _ = item[1]
        return -len(found), needs.turn

    for name, (needs, found, near) in sorted(wanted.items(), key=order):
        ranks = room.choose(needs, len(found), near)
        if ranks is None:
            return None
        room.take(needs, ranks)
        chosen[name] = ranks
    return chosen, room


def _give_back(waiting, room, running):
    """Return which jobs lose ranks so that a waiting one can start.

    None if that does not suffice: then it has to wait for the end of a job.
    """
    room, coming, changing = room.copy(), False, {}
    n_missing = waiting.least - sum(room.sizes(waiting).values())
    order = sorted(running.items(), key=lambda item: item[1].needs.turn, reverse=True)
    for name, job in order:
        if job.needs.priority > waiting.priority:
            continue
        ranks, least = job.ranks, job.needs.least
        # A free rank may still lack memory or a GPU, so free ranks are counted anew.
        while n_missing > 0 and len(ranks) > least:
            n_kept = max(least, len(ranks) - n_missing)
            room.release(job.needs, ranks[n_kept:])
            ranks = ranks[:n_kept]
            n_missing = waiting.least - sum(room.sizes(waiting).values())
        if len(ranks) < len(job.ranks):
            if job.is_changing:
                coming = True  # look again when it has changed
            else:
                changing[name] = ranks
    return changing if n_missing <= 0 and (changing or coming) else None


def _widen(starting, ready, room):
    """Give free ranks to jobs that start, one after another to that with the fewest."""
    spares = Spares(room, {name: (ready[name], r) for name, r in starting.items()})
    turns = [(len(ranks), ready[name].turn, name) for name, ranks in starting.items()]
    heapq.heapify(turns)
    while turns and room.free:
        n_ranks, turn, name = heapq.heappop(turns)
        rank = spares.give(name) if n_ranks < ready[name].most else None
        if rank is not None:
            starting[name].append(rank)
            heapq.heappush(turns, (n_ranks + 1, turn, name))


def _grow(room, running, share):
    """Give free ranks to jobs that run, and return the ranks of those that change."""
    if not room.free:
        return {}
    empty, found = room.copy(), {name: list(job.ranks) for name, job in running.items()}
    share(found, running, room)
    wanted = {}
    for name, ranks in found.items():
        job = running[name]
        new = ranks[len(job.ranks) :]
        if new and _is_worth_it(job, len(ranks)):
            wanted[name] = job.needs, new, job.ranks
    chosen, _ = _gather(empty, wanted) or ({n: w[1] for n, w in wanted.items()}, None)
    return {name: running[name].ranks + new for name, new in chosen.items()}


def _share(found, running, room):
    """Give free ranks to jobs that run, one after another where it saves most time."""
    jobs = {name: (job.needs, job.ranks) for name, job in running.items()}
    spares, gains = Spares(room, jobs), []

    def push(number, name):
        gain_s = saved_by_one(running[name], len(found[name]))
        if gain_s > 0:
            heapq.heappush(gains, (-gain_s, number, name))

    for number, name in enumerate(running):
        push(number, name)
    while gains and room.free:
        _, number, name = heapq.heappop(gains)
        rank = spares.give(name)
        if rank is not None:
            found[name].append(rank)
            push(number, name)


def saved_by_one(job, n_ranks):
    """Return the seconds that one more rank than ``n_ranks`` would save."""
    if job.is_changing or n_ranks >= min(job.needs.most, job.most_useful):
        return 0.0
    now_s, then_s = job.seconds_left(n_ranks), job.seconds_left(n_ranks + 1)
    return 0.0 if now_s is None else now_s - then_s


def _is_worth_it(job, n_ranks):
    saved_s = job.seconds_left(len(job.ranks)) - job.seconds_left(n_ranks)
    return saved_s > WORTH * job.cost_s
