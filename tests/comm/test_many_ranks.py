"""What a rank does in calls with ten and with 100,000 ranks, counted."""

import numpy as np
import pytest

from pympi_train.comm.checks import require_all_equal, together
from pympi_train.comm.control import Control
from pympi_train.comm.sums import tree
from pympi_train.data.groups import own_cuts


class Counting:
    """A communicator of rank 1 of ``size`` that counts calls and bytes.

    All ranks pass what this rank does.
    """

    rank = 1

    def __init__(self, size):
        self.size, self.calls = size, []

    def Allreduce(self, _, block, op):
        self.calls.append(("Allreduce", block.nbytes))

    def allgather(self, value):
        self.calls.append(("allgather", self.size))
        return [value] * self.size


def _together(comm):
    with together(comm):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda comm: require_all_equal(comm, {"rows": 7, "dtype": "float32"}),
        lambda comm: Control(comm).exchange(1.0, 2.0),
        _together,
    ],
    ids=["require_all_equal", "control message", "together"],
)
def test_calls_and_bytes_do_not_grow_with_the_ranks(call):
    few, many = Counting(10), Counting(100_000)
    call(few)
    call(many)
    assert few.calls == many.calls
    assert sum(n_bytes for _, n_bytes in many.calls) <= 32


def test_an_exact_sum_joins_no_nodes_one_by_one_if_all_are_present(monkeypatch):
    comm = Counting(1000)
    comm.Alltoallv = comm.Allgatherv = lambda *args: None
    summed, block = tree.TreeSum(comm, 4000), np.ones(2000, np.float32)
    monkeypatch.setattr(tree, "Forest", None)
    summed.sum([block], np.ones(4000, bool), block)


def test_a_rank_computes_only_the_cuts_of_its_own_groups():
    class Shares:
        """Cuts of which only a rank's own two are read."""

        def __getitem__(self, which):
            assert which == slice(1, 3)
            return [100_000, 100_002]

    found = own_cuts(10**9 + 7, 200_000, 1, 100_000, Shares())
    cuts = [g * (10**9 + 7) // 200_000 for g in (100_000, 100_001, 100_002)]
    assert found.tolist() == (np.array(cuts) - cuts[0]).tolist()
