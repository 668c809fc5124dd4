"""The control exchange: sums, and what went wrong on any rank."""

import math

import pytest

from pympi_train.comm.control import Control
from pympi_train.errors import DataError, RemoteRankError

pytestmark = pytest.mark.mpi(min_size=2)


def test_sums(group):
    control, p = Control(group), group.size
    # Beyond 2^24, where float32 loses counts.
    found = control.exchange(2.0**24 + group.rank, -0.5 * group.rank)
    assert found == (p * 2**24 + p * (p - 1) / 2, -0.25 * p * (p - 1), 0.0)


def test_rank_without_rows(comm):
    control = Control(comm)
    weight, loss = (3.0, 1.5) if comm.rank == 0 else (0.0, 0.0)
    assert control.exchange(weight, loss) == (3, 1.5, 0)


def test_any_rank_may_wish_to_stop(comm):
    control = Control(comm)
    last = comm.size - 1
    assert control.exchange(1.0, 1.0, stop=float(comm.rank == last))[2] == 1.0
    assert control.exchange(1.0, 1.0)[2] == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_reaches_all(comm, value):
    loss = value if comm.rank == comm.size - 1 else 1.0
    assert not math.isfinite(Control(comm).exchange(1.0, loss)[1])


def test_infinities_of_two_signs_do_not_cancel(comm):
    loss = {0: math.inf, 1: -math.inf}.get(comm.rank, 0.0)
    assert math.isnan(Control(comm).exchange(1.0, loss)[1])


def test_error_travels(comm):
    control, own = Control(comm), OSError("disk on fire")
    error = own if comm.rank == 1 else None
    with pytest.raises((OSError, RemoteRankError)) as info:
        control.exchange(1.0, 1.0, error=error)
    if comm.rank == 1:
        assert info.value is own
    else:
        assert (info.value.rank, "disk on fire" in info.value.traceback) == (1, True)
    # The next exchange begins anew.
    assert control.exchange(1.0, 0.0) == (comm.size, 0, 0)


def test_error_wins_over_a_loss_that_is_not_finite(comm):
    error = DataError("row 3") if comm.rank == 0 else None
    with pytest.raises(DataError, match="row 3"):
        Control(comm).exchange(math.nan, math.nan, error=error)


def test_error_on_one_rank_alone():
    from mpi4py import MPI

    with pytest.raises(KeyError):
        Control(MPI.COMM_SELF).exchange(1.0, 1.0, error=KeyError("lost"))
