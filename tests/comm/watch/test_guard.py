"""Guarded communicators: as others, and noted; with debug, agreed."""

import threading

import numpy as np
import pytest

from pympi_train.comm.checks import require_equal, together
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.guard import (
    compare_places,
    guarded,
    marker,
    note_wait,
    wait_all,
)
from pympi_train.comm.watch.operations import OPERATIONS
from pympi_train.errors import RankMismatchError

LONG = 1000.0


@pytest.fixture
def quiet(comm):
    """Guarded, by a thread that ends no job, with ranks that agree on each call."""
    guard = guarded(comm.Dup(), 0, debug=True)
    yield guard
    guard.Free()


@pytest.fixture
def watched(comm):
    guard = guarded(comm.Dup(), LONG)
    yield guard
    if guard:
        guard.Free()


def threads():
    return [t for t in threading.enumerate() if t.name == "pympi_train watchdog"]


def begun(guard, channel=0):
    return guard.row[j.CHANNELS + 2 * channel]


def test_nothing_to_guard_alone():
    from mpi4py import MPI

    assert guarded(MPI.COMM_SELF, LONG) is MPI.COMM_SELF
    marker(MPI.COMM_SELF)(j.INPUT, 3)  # goes nowhere


@pytest.mark.mpi(min_size=2)
def test_what_is_guarded_is_not_guarded_again(comm, watched):
    assert guarded(watched, LONG) is watched


@pytest.mark.mpi(min_size=2)
def test_calls_do_what_they_do_without(comm, watched):
    from mpi4py import MPI

    rank, size = comm.rank, comm.size
    total = np.full(3, rank, dtype=np.int64)
    watched.Allreduce(MPI.IN_PLACE, total, op=MPI.MAX)
    assert total.tolist() == [size - 1] * 3
    assert watched.allgather(rank) == list(range(size))
    assert watched.bcast(rank, root=size - 1) == size - 1
    row = np.array([rank], dtype=np.float64)
    table = np.zeros(size)
    watched.Allgather(row, table)
    assert table.tolist() == list(range(size))
    request = watched.Iallreduce(MPI.IN_PLACE, row, op=MPI.SUM)
    request.Wait()
    assert row[0] == sum(range(size))
    requests = [watched.Isend(row, rank), watched.Irecv(table[:1], rank)]
    wait_all(watched, requests)
    assert table[0] == row[0]
    assert requests[0] == MPI.REQUEST_NULL
    watched.Barrier()


@pytest.mark.mpi(min_size=2)
def test_calls_are_counted_and_noted(watched, monkeypatch):
    from mpi4py import MPI

    assert begun(watched) == 0
    watched.Barrier()
    watched.Ibarrier().Wait()
    assert begun(watched) == 2
    assert watched.row[j.WAITING] == 0
    with pytest.raises(ValueError):  # noted as over all the same
        watched.Bcast([], root=watched.size + 1)
    assert watched.row[j.WAITING] == 0

    class Buffer:
        """Looks at the journal while MPI asks what kind of buffer it is."""

        seen: list = []

        @property
        def __array_interface__(self):
            self.seen.append(j.waited_in(watched.row[j.WAITING]))
            raise AttributeError

    with pytest.raises((TypeError, BufferError, ValueError)):
        watched.Allreduce(MPI.IN_PLACE, Buffer())
    assert Buffer.seen == [] or Buffer.seen[0] == (
        4,
        OPERATIONS.index("Allreduce"),
        0,
    )


@pytest.mark.mpi(min_size=2)
def test_wait_around_a_wait_is_noted_to_its_end(watched):
    def operation():
        return OPERATIONS[j.waited_in(watched.row[j.WAITING])[1]]

    seen = []

    def outer():
        seen.append(watched.row[j.WAITING])
        note_wait(watched, lambda: seen.append(watched.row[j.WAITING]))
        assert watched.row[j.WAITING] == seen[0] != seen[1]
        watched.Barrier()
        assert watched.row[j.WAITING] == seen[0]
        assert operation() == "Wait"

    note_wait(watched, outer)
    assert watched.row[j.WAITING] == 0 and len(seen) == 2
    watched.Barrier()


@pytest.mark.mpi(min_size=2)
def test_place_is_seen_by_the_node(watched):
    marker(watched)(j.FORWARD, 10 + watched.rank)
    watched.Barrier()
    for row in watched._journal.table:
        rank = int(row[j.RANK])
        assert j.place_and_step(int(row[j.PLACE])) == ("forward", 10 + rank)
    watched.Barrier()


@pytest.mark.mpi(min_size=3)
def test_communicators_within_are_guarded(watched):
    from mpi4py import MPI

    # Two halves; a rank alone in its half has nothing to wait for.
    half = watched.Split(watched.rank % 2, key=watched.rank)
    node = watched.Split_type(MPI.COMM_TYPE_SHARED)
    twice = node.Dup()
    assert [c._channel for c in (node, twice)] == [2, 3]
    if half.size > 1:
        half.Barrier()
        assert (half._channel, begun(half, 1)) == (1, 1)
        assert half.row[j.CHANNELS + 3] == 1 + watched.rank % 2
    assert begun(twice, 3) == 0
    none = watched.Split(MPI.UNDEFINED if watched.rank else 0)
    assert none == MPI.COMM_NULL or none.size == 1
    twice.Free()
    again = node.Dup()  # channels are used again
    assert again._channel == 3
    for one in (again, node, half):
        one.Free()
        assert not one


@pytest.mark.mpi(min_size=2)
def test_more_communicators_than_channels(watched):
    many = [watched.Dup() for _ in range(j.N_CHANNELS + 2)]
    for one in many:
        one.Barrier()
    for one in many:
        one.Free()
    watched.Barrier()
    assert watched._journal.used == 1


@pytest.mark.mpi(min_size=2)
def test_free_stops_the_thread(comm):
    before = len(threads())
    guard = guarded(comm.Dup(), LONG)
    assert len(threads()) == before + 1
    guard.Free()
    assert len(threads()) == before
    assert not guard
    mark = marker(guard)
    mark(j.INPUT)  # goes nowhere


@pytest.mark.mpi(min_size=2)
def test_checks_across_ranks_agree_too(quiet):
    require_equal(quiet, "seed", 3)
    with together(quiet):
        pass
    with pytest.raises(RankMismatchError, match="seed differs"):
        require_equal(quiet, "seed", quiet.rank)


def by_rank(guard, call, other):
    """The error of a collective that the last rank replaces by another."""
    with pytest.raises(RankMismatchError) as info:
        (other if guard.rank == guard.size - 1 else call)()
    text = str(info.value)
    assert guard.allgather(text) == [text] * guard.size
    assert f"but rank {guard.size - 1} " in text
    return text


@pytest.mark.mpi(min_size=2)
def test_operation_that_is_a_function(quiet):
    def union(a, b):
        return a | b

    assert quiet.allreduce({quiet.rank}, op=union) == set(range(quiet.size))


@pytest.mark.mpi(min_size=2)
def test_other_operation(quiet):
    a = np.zeros(4, dtype=np.float32)
    text = by_rank(quiet, lambda: quiet.Bcast(a), quiet.Barrier)
    assert "collective 1 of" in text
    assert "rank 0 calls Bcast (4 elements, of float32) at " in text
    assert text.count("test_guard.py:") == 2


@pytest.mark.mpi(min_size=2)
def test_other_dtype_or_count(quiet):
    from mpi4py import MPI

    def summed(n, dtype):
        return quiet.Allreduce(MPI.IN_PLACE, np.zeros(n, dtype))

    text = by_rank(quiet, lambda: summed(3, "f4"), lambda: summed(3, "f8"))
    assert "of float32" in text and "of float64" in text
    text = by_rank(quiet, lambda: summed(3, "f4"), lambda: summed(2, "f4"))
    assert "(3 elements" in text and "(2 elements" in text


@pytest.mark.mpi(min_size=2)
def test_other_reduction_and_root(quiet):
    from mpi4py import MPI

    a = np.zeros(2)

    def reduced(op):
        quiet.Allreduce(MPI.IN_PLACE, a, op=op)

    text = by_rank(quiet, lambda: reduced(MPI.SUM), lambda: reduced(MPI.MAX))
    assert "op SUM" in text and "op MAX" in text
    text = by_rank(
        quiet, lambda: quiet.bcast(1, root=0), lambda: quiet.bcast(1, root=1)
    )
    assert "root 0" in text and "root 1" in text


def here(comm):
    require_equal(comm, "a", 1)


def there(comm):
    require_equal(comm, "b", 2)


@pytest.mark.mpi(min_size=2)
def test_other_call_site(quiet):
    """The same collective for two reasons: values would be taken for each other."""
    text = by_rank(quiet, lambda: here(quiet), lambda: there(quiet))
    assert text.count("pympi_train/comm/checks.py:") == 2
    assert text.count("called from ") == 2
    assert text.count("test_guard.py:") == 2


@pytest.mark.mpi(min_size=2)
def test_kinds_of_ranks_may_call_from_other_places(comm, quiet):
    compare_places(comm, False)  # not guarded: nothing to say
    compare_places(quiet, False)
    if quiet.rank == 0:
        quiet.bcast("x", root=0)
    else:
        (lambda: quiet.bcast(None, root=0))()
    compare_places(quiet, True)


@pytest.mark.mpi(min_size=2)
def test_counts_that_may_differ(quiet):
    mine = np.full(quiet.rank, quiet.rank, dtype=np.int32)
    whole = np.zeros(sum(range(quiet.size)), dtype=np.int32)
    quiet.Allgatherv(mine, [whole, list(range(quiet.size))])
    assert whole.sum() == sum(i * i for i in range(quiet.size))
    # A value that only the root has, and lines of one function.
    if quiet.rank == 0:
        got = quiet.bcast("x", root=0)
    else:
        got = quiet.bcast(None, root=0)
    assert got == "x"
