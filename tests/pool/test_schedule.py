"""Which ranks work for which job."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_schedule import NaiveRoom, naive_plan

from pympi_train.pool.room import Machine, Needs, Room
from pympi_train.pool.schedule import Running, plan
from pympi_train.pool.spares import Spares


def machine(n_ranks=4, per_node=4, gpus=None, memory=100.0):
    nodes = [rank // per_node for rank in range(n_ranks)]
    return Machine(nodes, gpus or [None] * n_ranks, [memory] * (nodes[-1] + 1))


def running(ranks, least=1, most=9, priority=0, number=0, **known):
    return Running(Needs(least, most, priority, number), ranks, **known)


def test_jobs_start_in_turn_on_the_fewest_ranks():
    ready = {"low": Needs(1, 4, 0, 0), "late": Needs(2, 4, 5, 2)}
    ready["soon"] = Needs(1, 4, 5, 1)
    starting, changing = plan(machine(), range(4), ready, {})
    assert starting == {"soon": [3], "late": [1, 2], "low": [0]} and not changing


def test_ranks_for_which_no_job_waits_are_shared_evenly():
    ready = {"a": Needs(1, 4, 0, 0), "b": Needs(1, 2, 0, 1)}
    starting, _ = plan(machine(6, 6), range(6), ready, {})
    assert sorted(map(len, starting.values())) == [2, 4]
    assert sorted(sum(starting.values(), [])) == list(range(6))


def test_no_job_overtakes_one_that_waits_for_more_ranks():
    ready = {"wide": Needs(3, 4, 0, 0), "narrow": Needs(1, 1, 0, 1)}
    busy = {"long": running([0, 1], least=2)}
    assert plan(machine(), [2, 3], ready, busy) == ({}, {})


@pytest.mark.parametrize("priority, is_given", [(0, True), (1, True), (-1, False)])
def test_jobs_give_back_what_they_do_not_need(priority, is_given):
    ready = {"new": Needs(2, 4, priority, 9)}
    busy = {"a": running([0, 3], number=0), "b": running([1, 2], number=1)}
    starting, changing = plan(machine(), [], ready, busy)
    assert not starting
    assert changing == ({"a": [0], "b": [1]} if is_given else {})


@pytest.mark.parametrize("memory, kept", [(60.0, None), (40.0, [1])])
def test_jobs_give_back_nothing_to_one_that_could_not_start(memory, kept):
    """It waits for the memory of another job. They got their ranks back, and so on."""
    ready = {"new": Needs(2, 2, 0, 9, memory=memory / 2)}
    large = Running(Needs(1, 1, memory=60.0), [0])
    _, changing = plan(machine(), [], ready, {"a": large, "b": running([1, 2, 3])})
    assert changing == ({"b": kept} if kept else {})


def test_jobs_give_back_until_memory_suffices():
    ready = {"new": Needs(1, 1, 0, 9, memory=60.0)}
    busy = {"a": Running(Needs(1, 4, memory=25.0), [0, 1, 2, 3])}
    assert plan(machine(), [], ready, busy) == ({}, {"a": [0]})


def test_ranks_that_are_on_their_way_are_not_taken_twice():
    ready = {"new": Needs(1, 4, 1, 9)}
    busy = {"a": running([0, 1], is_changing=True), "b": running([2, 3])}
    _, changing = plan(machine(), [], ready, busy)
    assert changing in ({}, {"b": [2]})
    both = {"new": Needs(2, 4, 1, 9)}
    assert plan(machine(), [], both, busy)[1] == {"b": [2]}


def test_free_ranks_join_where_they_save_most():
    known = {"steps_left": 1000, "step_s": {1: 0.1}}
    busy = {
        "short": running([0], number=0, steps_left=100, step_s={1: 0.1}),
        "long": running([1], number=1, **known),
        "most of it exchange": running([2], number=2, **known, exchange=0.9),
    }
    assert plan(machine(), [3], {}, busy) == ({}, {"long": [1, 3]})


@pytest.mark.parametrize(
    "known",
    [
        {"steps_left": 1, "step_s": {1: 0.1}},  # not worth the change
        {"steps_left": None, "step_s": {}},  # not measured
        {"steps_left": 1e4, "step_s": {1: 0.1, 2: 0.1}},  # did not help before
        {"steps_left": 1e4, "step_s": {1: 0.1}, "is_changing": True},
    ],
)
def test_ranks_stay_free_if_they_do_not_help(known):
    assert plan(machine(), [2, 3], {}, {"a": running([0], **known)}) == ({}, {})


def test_ranks_of_one_node_stay_together():
    room = Room(machine(8, 4), [0, 3, 4, 5, 6])
    assert room.choose(Needs(2, 8), 2) == [3, 0]
    assert room.choose(Needs(3, 8), 3) == [4, 5, 6]
    assert room.choose(Needs(4, 8), 4) == [4, 5, 6, 3]
    assert room.choose(Needs(1, 8), 1, near=[7]) == [4]
    assert room.choose(Needs(6, 8), 6) is None


def nodes_of(here, ranks):
    return {here.nodes[rank] for rank in ranks}


def test_jobs_that_start_together_share_few_nodes():
    """Two jobs on 3 nodes of 2 ranks: 3 ranks each, 2 on a node of their own."""
    here = machine(6, 2)
    ready = {"a": Needs(1, 6, 0, 0), "b": Needs(1, 6, 0, 1)}
    starting, _ = plan(here, range(6), ready, {})
    for ranks in starting.values():
        assert len(ranks) == 3 and len(nodes_of(here, ranks)) == 2


def test_jobs_that_grow_share_few_nodes():
    """Whole nodes first, which a job that shrinks loses last."""
    here, known = machine(8, 2), {"steps_left": 10000, "step_s": {1: 0.1}}
    busy = {"a": running([0], most=5, **known), "b": running([1], most=3, **known)}
    _, changing = plan(here, [2, 4, 5, 6, 7], {}, busy)
    assert changing == {"a": [0, 4, 5, 2], "b": [1, 6, 7]}


def test_a_job_that_cannot_have_more_keeps_what_it_found():
    """Memory for one more rank only."""
    here = machine(4, 4, memory=25.0)
    needs = Needs(1, 4, memory=10.0)
    job = Running(needs, [0], steps_left=10000, step_s={1: 0.1})
    assert plan(here, [1, 2, 3], {}, {"a": job}) == ({}, {"a": [0, 1]})


def test_a_gpu_belongs_to_one_job():
    gpus = ["a", "a", "b", None]
    room = Room(machine(gpus=gpus), [1, 2, 3], [Running(Needs(1, 1, gpus=1), [0])])
    assert room.choose(Needs(1, 4, gpus=1), 1) == [2]
    assert room.choose(Needs(2, 4, gpus=1), 2) is None
    assert Room(machine(gpus=gpus), range(4)).choose(Needs(2, 4, gpus=1), 2) == [1, 2]


def test_memory_of_a_node_is_not_promised_twice():
    other = Running(Needs(1, 1, memory=50.0), [0])
    room = Room(machine(8, 4), range(1, 8), [other])
    assert room.choose(Needs(2, 8, memory=40.0), 2) == [4, 5]
    assert room.choose(Needs(3, 8, memory=40.0), 3) == [4, 5, 1]
    assert room.choose(Needs(4, 8, memory=40.0), 4) is None


def test_a_job_keeps_its_new_rank_if_no_other_one_fits():
    nodes = Machine([0, 0, 1], [None] * 3, [100.0, 0.0])
    known = {"steps_left": 1e4, "step_s": {1: 0.1}}
    busy = {"a": Running(Needs(1, 9, memory=1.0), [0], **known)}
    assert plan(nodes, [1, 2], {}, busy) == ({}, {"a": [0, 1]})


def made_pool(rng):
    """Return a machine, its free ranks, and jobs that are ready and that run."""
    n_ranks = rng.randint(1, 24)
    nodes = [rng.randrange(5) for _ in range(n_ranks)]
    n_gpus = rng.choice([0, 1, 4])
    gpus = [
        f"{node} {rng.randrange(n_gpus)}" if n_gpus and rng.random() < 0.9 else None
        for node in nodes
    ]
    here = Machine(nodes, gpus, [rng.choice([0.0, 0.3, 1.0, 1e9]) for _ in range(5)])
    free, ready, busy = list(range(n_ranks)), {}, {}
    rng.shuffle(free)
    for number in range(rng.randint(1, 7)):
        least = rng.randint(1, 4)
        memory = rng.choice([0.0, 0.0, 0.1, 0.3])
        most = rng.randint(least, n_ranks + least)
        gpu = rng.choice([0, 0, 1])
        needs = Needs(least, most, rng.randint(0, 2), number, gpu, memory)
        name = f"j{number}"
        if rng.random() < 0.5:
            ready[name] = needs
            continue
        ranks = [free.pop() for _ in range(min(len(free), rng.randint(1, 5)))]
        busy[name] = Running(needs, ranks, is_changing=rng.random() < 0.2)
        busy[name].steps_left = rng.choice([None, 10, 10**6])
        busy[name].step_s = {len(ranks): rng.choice([0.1, 0.2])}
        busy[name].exchange = rng.choice([0.0, 0.5])
    return here, free, ready, busy


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_plans_are_those_of_a_search_through_all_ranks(seed):
    here, free, ready, busy = made_pool(random.Random(seed))
    assert plan(here, free, ready, busy) == naive_plan(here, free, ready, busy)


@given(st.integers(0, 2**32))
def test_chosen_ranks_are_those_of_a_search_through_all_ranks(seed):
    rng = random.Random(seed)
    here, free, ready, busy = made_pool(rng)
    rooms = [kind(here, free, busy.values()) for kind in (Room, NaiveRoom)]
    for needs in [*ready.values(), *(job.needs for job in busy.values())]:
        near = rng.sample(range(here.n_ranks), rng.randint(0, min(3, here.n_ranks)))
        n_ranks = rng.randint(0, 6)
        chosen, naive = (room.choose(needs, n_ranks, near) for room in rooms)
        assert chosen == naive
        for room in rooms:
            room.take(needs, chosen or [])


@given(st.integers(0, 2**32))
def test_ranks_given_one_by_one_are_those_of_a_search(seed):
    """Jobs that share a node take its ranks from each other."""
    rng = random.Random(seed)
    here, free, _, busy = made_pool(rng)
    naive = NaiveRoom(here, free, busy.values())
    jobs = {name: (job.needs, list(job.ranks)) for name, job in busy.items()}
    spares = Spares(Room(here, free, busy.values()), jobs)
    for name in rng.choices(sorted(busy), k=20) if busy else ():
        needs, ranks = jobs[name]
        chosen = naive.choose(needs, 1, ranks)
        given = spares.give(name)
        assert chosen == (None if given is None else [given])
        naive.take(needs, chosen or [])
        ranks += chosen or []


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_everything_ends(seed, n_ranks):
    """Ranks have one job at a time, limits hold, and each job has its turn."""
    rng = random.Random(seed)
    here = machine(n_ranks, rng.randint(1, n_ranks))
    ready, busy, free, n_jobs = {}, {}, set(range(n_ranks)), rng.randint(1, 8)
    for number in range(n_jobs):
        least = rng.randint(1, n_ranks)
        most = rng.randint(least, n_ranks)
        ready[f"j{number}"] = Needs(least, most, rng.randint(0, 2), number)
    for _ in range(50 * n_jobs):
        starting, changing = plan(here, free, ready, busy)
        for name, ranks in starting.items():
            needs = ready.pop(name)
            assert set(ranks) <= free and needs.least <= len(ranks) <= needs.most
            free -= set(ranks)
            busy[name] = Running(needs, ranks, steps_left=rng.randint(1, 10**6))
            busy[name].step_s[len(ranks)] = rng.random()
        for name, ranks in changing.items():
            job = busy[name]
            n = min(len(ranks), len(job.ranks))
            assert ranks[:n] == job.ranks[:n] and not job.is_changing
            assert job.needs.least <= len(ranks) <= job.needs.most
            assert set(ranks[n:]) <= free
            free -= set(ranks)
            job.is_changing, job.coming = True, ranks
        used = [r for job in busy.values() for r in getattr(job, "coming", job.ranks)]
        assert len(set(used)) == len(used) and not free & set(used)
        if not ready and not busy:
            return
        name = rng.choice(sorted(busy))  # something happens to it
        job = busy[name]
        if job.is_changing:
            free |= set(job.ranks) - set(job.coming)
            job.ranks, job.is_changing = job.coming, False
            del job.coming
            job.step_s[len(job.ranks)] = rng.random()
        else:
            free |= set(busy.pop(name).ranks)
    raise AssertionError("some job had no turn")
