"""Workers and servers: who is what, and errors that reach both."""

import pytest

from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.roles import Roles
from pympi_train.errors import ConfigError, DataError, RemoteRankError


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("from_end", [1, 2])
def test_the_last_ranks_serve(comm, from_end):
    n_servers = min(from_end, comm.size - 1)
    with Roles(comm, n_servers) as roles:
        assert roles.serves is (comm.rank >= comm.size - n_servers)
        assert roles.comm.size == (n_servers if roles.serves else roles.n_workers)
        first = roles.n_workers if roles.serves else 0
        assert roles.comm.rank == comm.rank - first
    assert not roles.comm


@pytest.mark.mpi(min_size=2)
def test_no_rank_left(comm):
    with pytest.raises(ConfigError, match=f"got {comm.size} in all") as caught:
        Roles(comm, comm.size)
    assert is_agreed(caught.value, comm)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("error", [DataError("torn"), ZeroDivisionError("nought")])
def test_servers_raise_what_workers_raise(comm, error):
    """Here it is the last worker's; the others and the servers name it."""
    by, is_mendable = comm.size - 2, isinstance(error, DataError)
    kind = type(error) if is_mendable or comm.rank == by else RemoteRankError
    with pytest.raises(kind, match="torn|nought") as caught:
        with Roles(comm, 1) as roles, roles.told():
            if not roles.serves:
                with together(roles.comm):
                    if comm.rank == by:
                        raise error
    assert is_agreed(caught.value, comm)
    if kind is RemoteRankError:
        assert caught.value.rank == by
        assert str(caught.value) == f"rank {by}: ZeroDivisionError: nought"
        assert "raise error" in caught.value.traceback


@pytest.mark.mpi(min_size=2)
def test_error_of_all_of_one_worker(comm):
    """A worker alone is all workers: nobody has to agree first."""
    kind = RemoteRankError if comm.rank else ZeroDivisionError
    with pytest.raises(kind, match="nought"):
        with Roles(comm, comm.size - 1) as roles, roles.told():
            if not roles.serves:
                raise ZeroDivisionError("nought")


@pytest.mark.mpi(min_size=3)
def test_error_of_one_worker_alone_is_told_to_nobody(comm):
    roles, caught = Roles(comm, 1), None
    if comm.rank == 0:
        try:
            with roles.told():
                raise ZeroDivisionError("alone")
        except ZeroDivisionError as error:
            caught = error
        assert not hasattr(caught, "agreed")
        roles.raise_everywhere(None)  # what the server waits for
    else:
        with roles.told():
            pass
    roles.free()
