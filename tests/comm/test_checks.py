"""Checks made together: one error on one rank is an error on all of them."""

import pytest

from pympi_train.comm.checks import (
    agreed_within,
    is_agreed,
    members,
    require_equal,
    together,
)
from pympi_train.errors import (
    ConfigError,
    DataError,
    RankMismatchError,
    RemoteRankError,
    UserError,
)

pytestmark = pytest.mark.mpi(min_size=2)


def caught(comm, errors):
    """What each rank raises if rank r meets ``errors[r]`` in a common block."""
    try:
        with together(comm):
            if comm.rank in errors:
                raise errors[comm.rank]
    except Exception as error:
        return error
    return None


def test_nothing_raised_where_nothing_went_wrong(group):
    assert caught(group, {}) is None


@pytest.mark.parametrize("cls", [ConfigError, DataError, UserError])
def test_user_error_is_the_same_on_all_ranks(comm, cls):
    last = comm.size - 1
    error = caught(comm, {last: cls("line 3: no number")})
    assert type(error) is cls
    assert str(error) == "line 3: no number"
    assert is_agreed(error, comm)


def test_other_error_is_remote_on_other_ranks(comm):
    last, own = comm.size - 1, ZeroDivisionError("by zero")
    error = caught(comm, {last: own})
    assert is_agreed(error, comm)
    if comm.rank == last:
        assert error is own
    else:
        assert type(error) is RemoteRankError
        assert error.rank == last
        assert str(error) == f"rank {last}: ZeroDivisionError: by zero"
        # Where it happened over there, and in what Python prints of it here.
        assert "raise errors[comm.rank]" in error.traceback
        assert error.traceback.rstrip().endswith("ZeroDivisionError: by zero")
        assert error.traceback in "\n".join(error.__notes__)


def test_lowest_rank_is_told_where_several_fail(comm):
    errors = {rank: ValueError(f"of rank {rank}") for rank in range(1, comm.size)}
    error = caught(comm, errors)
    if comm.rank == 1:
        assert error is errors[1]
    else:
        assert type(error) is RemoteRankError
        assert (error.rank, str(error)) == (1, "rank 1: ValueError: of rank 1")


def test_lowest_rank_is_told_where_all_fail(comm):
    error = caught(comm, {r: DataError(f"file {r}") for r in range(comm.size)})
    assert (type(error), str(error)) == (DataError, "file 0")


def test_error_of_a_user_s_own_class_is_remote(comm):
    class MyError(UserError):
        pass

    error = caught(comm, {0: MyError("mine")})
    assert type(error) is (MyError if comm.rank == 0 else RemoteRankError)


def test_ranks_meet_again_after_an_error(comm):
    caught(comm, {0: KeyError("lost")})
    assert comm.allgather(comm.rank) == list(range(comm.size))


def test_error_of_some_ranks_only_is_not_agreed_by_all(comm):
    from mpi4py import MPI

    # Each rank alone: the others know nothing of it, so the job has to end.
    error = caught(MPI.COMM_SELF, {0: ValueError("alone")})
    assert str(error) == "alone"
    assert not is_agreed(error, comm)
    assert is_agreed(error, MPI.COMM_SELF)


def test_error_of_a_group_is_agreed_within_it_and_its_parts(comm):
    half = comm.Split(int(comm.rank > 0), key=-comm.rank)
    try:
        error = agreed_within(half, ValueError())
        assert not is_agreed(error, comm)
        assert is_agreed(error, half)
        everyones = agreed_within(comm, ValueError())
        assert is_agreed(everyones, half) and is_agreed(everyones, comm)
    finally:
        half.Free()


def test_members_are_ranks_of_the_world(comm):
    turned = comm.Split(0, key=-comm.rank)
    try:
        assert members(turned) == tuple(reversed(members(comm)))
    finally:
        turned.Free()


@pytest.mark.parametrize("value", [3, "text", ("a", 1.5), None])
def test_equal_values_pass(group, value):
    require_equal(group, "the value", value)


def test_first_rank_that_differs_is_named(comm):
    odd = comm.size - 1
    with pytest.raises(RankMismatchError) as info:
        require_equal(comm, "width", 4 if comm.rank == odd else 3, hint="Make it 3.")
    text = str(info.value)
    assert f"width differs between ranks: 3 on rank 0 but 4 on rank {odd}" in text
    assert f"(1 of {comm.size} ranks differ from rank 0). Make it 3." in text
    assert is_agreed(info.value, comm)


def test_number_of_ranks_that_differ(comm):
    with pytest.raises(RankMismatchError, match="but 1 on rank 1") as info:
        require_equal(comm, "rank", comm.rank)
    assert f"({comm.size - 1} of {comm.size} ranks" in str(info.value)
