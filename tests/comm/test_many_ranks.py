"""What a rank does in calls with ten and with 100,000 ranks, counted."""

import numpy as np
import pytest
from mpi4py import MPI

from pympi_train.backends.numpy import ops
from pympi_train.comm.checks import require_all_equal, together
from pympi_train.comm.control import Control
from pympi_train.comm.sums.compress import WireSum
from pympi_train.comm.sums.tree_sum import TreeSum
from pympi_train.comm.sums.wires import Wire
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


class CountedOps:
    """The operations of NumPy; counts calls that encode or decode."""

    def __init__(self):
        self.n_calls = 0

    def __getattr__(self, name):
        if name.startswith(("pack", "unpack")):

            def counted(*args):
                self.n_calls += 1
                return getattr(ops, name)(*args)

            return counted
        return getattr(ops, name)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_a_compressed_sum_encodes_and_decodes_a_whole_block(kind):
    comm, counted = Counting(100_000), CountedOps()
    comm.Ialltoallv = comm.Iallgatherv = lambda *args: MPI.REQUEST_NULL
    total = WireSum(comm, 5000, "float32", Wire(kind, counted))
    total.sum(np.ones(5000, np.float32))
    assert counted.n_calls == 2  # rank 1 owns no slice


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_many_short_messages_are_decoded_together(kind):
    counted = CountedOps()
    wire = Wire(kind, counted)
    wire.decode_sum(np.zeros((1000, wire.bytes(256)), np.uint8), np.zeros(256))
    assert counted.n_calls == 5  # the first, and 256 at a time


def test_an_exact_sum_sends_as_many_messages_as_the_tree_is_high():
    comm, sent = Counting(65536), []
    comm.Isend = comm.Recv = None
    comm.Sendrecv = lambda given, to, *args: sent.append(given.size)
    block = np.ones(2**17, np.float32)
    TreeSum(comm, 65536).sum([block], np.ones(65536, bool), block)
    assert sent == [2**i for i in (*range(16, 0, -1), *range(1, 17))]


def test_a_rank_computes_only_the_cuts_of_its_own_groups():
    class Shares:
        """Cuts of which only a rank's own two are read."""

        def __getitem__(self, which):
            assert which == slice(1, 3)
            return [100_000, 100_002]

    found = own_cuts(10**9 + 7, 200_000, 1, 100_000, Shares())
    cuts = [g * (10**9 + 7) // 200_000 for g in (100_000, 100_001, 100_002)]
    assert found.tolist() == (np.array(cuts) - cuts[0]).tolist()
