"""Who goes on, and with whom: a stand-in for MPI here; tests/runs/test_survive.py kills
ranks."""

import pytest
from mpi4py import MPI

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.watch import survivors
from pympi_train.comm.watch.survivors import dead_ranks, outlive, require_ulfm
from pympi_train.errors import ConfigError, DataError


class World:
    """A communicator of which ranks may die. ``agree``: what Agree returns in turn."""

    def __init__(self, size, agree, after=None):
        self.rank, self.size, self.after = 0, size, after
        self.agree, self.revoked = list(agree), False
        self.has_failed = False

    def Get_group(self):
        return MPI.COMM_SELF.Get_group()

    def Agree(self, flag):
        found = self.agree.pop(0)
        if found is None:
            raise MPI.Exception(MPI.ERR_OTHER)
        return found & flag

    def Get_failed(self):
        return MPI.COMM_SELF.Get_group() if self.has_failed else MPI.GROUP_EMPTY

    def Is_revoked(self):
        return self.revoked

    def Revoke(self):
        self.revoked = True

    def Shrink(self):
        assert self.revoked
        return self.after.pop(0)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    survivors._left.clear()


def work(*outcomes):
    """Return (function, the communicators that it was called with)."""
    calls, left = [], list(outcomes)

    def once(comm):
        calls.append(comm)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return once, calls


def test_nobody_died():
    world = World(3, [1])
    do, calls = work("done")
    assert outlive(world, do, 1.0) == "done"
    assert calls == [world] and not world.revoked
    assert survivors.current_world() == MPI.COMM_WORLD


def test_one_died_and_another_while_the_rest_shrinks():
    torn, left = World(3, [None]), World(2, [1, 1])
    world = World(4, [1], [torn, left])
    do, calls = work(MPI.Exception(MPI.ERR_OTHER), "done")
    assert outlive(world, do, 0) == "done"
    assert calls == [world, left] and world.revoked
    assert survivors.current_world() is left


def test_a_rank_that_was_done_helps_the_others():
    left = World(2, [1, 1])
    world = World(3, [None], [left])
    do, calls = work("done", "done again")
    assert outlive(world, do, 1.0) == "done again"
    assert calls == [world, left]


def test_the_second_failure_shrinks_the_first_communicator():
    one, two = World(2, [1, 0]), World(1, [1, 1])
    world = World(3, [1], [one, two])
    error = MPI.Exception(MPI.ERR_OTHER)
    do, calls = work(error, error, "done")
    assert outlive(world, do, 1.0) == "done"
    assert calls == [world, one, two] and one.revoked


def test_an_error_of_mpi_without_a_death_is_raised():
    world = World(3, [1], [World(3, [1])])
    error = MPI.Exception(MPI.ERR_OTHER)
    with pytest.raises(MPI.Exception) as info:
        outlive(world, work(error)[0], 1.0)
    assert info.value is error


@pytest.mark.parametrize("agree, n_calls", [([1], 1), ([None], 2)])
def test_an_error_of_all_ranks_is_raised_if_none_has_died(agree, n_calls):
    world = World(3, agree, [World(2, [1, 1])])
    error = agreed_within(MPI.COMM_SELF, DataError("no such file"))
    do, calls = work(error, error)
    with pytest.raises(DataError):
        outlive(world, do, 1.0)
    assert len(calls) == n_calls


def test_an_error_that_a_death_has_caused_is_survived():
    left = World(2, [1, 1])
    world = World(3, [1], [left])
    world.has_failed = True  # and garbage was received
    do, calls = work(EOFError("pickle"), "done")
    assert outlive(world, do, 1.0) == "done"
    assert calls == [world, left]


def test_an_error_of_one_rank_is_not_agreed_upon():
    world = World(3, [])
    error = KeyError("on this rank")
    error.raised_by = frozenset()
    with pytest.raises(KeyError):
        outlive(world, work(error)[0], 1.0)


@pytest.mark.mpi(min_size=2)
def test_dead_ranks(comm):
    left = comm.Split(int(comm.rank == 1))
    want = [1] if comm.rank != 1 else [i for i in range(comm.size) if i != 1]
    assert dead_ranks(comm, left) == want
    left.Free()


@pytest.mark.mpi(min_size=2)
def test_mpi_that_does_not_report_deaths(comm, monkeypatch):
    monkeypatch.setattr(survivors, "TRY_S", 0.5)
    with pytest.raises(ConfigError, match="survive = true.*--with-ft ulfm"):
        require_ulfm(comm)
