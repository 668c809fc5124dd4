"""Memory that ranks of a node share."""

import numpy as np
import pytest

from pympi_train.comm.mesh import Nodes
from pympi_train.comm.shared import SharedBlock, padded, require_space
from pympi_train.errors import ConfigError


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", ["equal", "first only", "last only", "none"])
def test_all_ranks_see_what_each_writes(comm, sizes, dtype):
    counts = {
        "equal": [10] * comm.size,
        "first only": [7] + [0] * (comm.size - 1),
        "last only": [0] * (comm.size - 1) + [7],
        "none": [0] * comm.size,
    }[sizes]
    block = SharedBlock(comm, counts, dtype)
    assert block.array.shape == (sum(counts),) and not block.array.any()
    assert block.array.ctypes.data % 64 == 0
    block.sync()
    block.part(comm.rank)[:] = comm.rank + 1
    block.sync()
    want = [rank + 1.0 for rank, n in enumerate(counts) for _ in range(n)]
    assert block.array.tolist() == want
    assert all(len(block.part(rank)) == n for rank, n in enumerate(counts))
    block.free()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("who", ["nobody", "all", "one"])
def test_memory_is_kept_for_whom_it_would_fail(comm, who):
    block = SharedBlock(comm, [1000] * comm.size, "float64")
    block.part(comm.rank)[:] = comm.rank
    block.sync()
    holds = who == "all" or (who == "one" and comm.rank == comm.size - 1)
    view = block.array[::1000].reshape(-1, 1) if holds else None
    assert block.free() is (who == "nobody")
    assert block.free()  # nothing to do
    if holds:
        assert view.ravel().tolist() == list(range(comm.size))


@pytest.mark.mpi(min_size=2)
def test_views_in_the_frames_of_a_handled_exception_are_dropped(comm):
    """Whatever the exception's causes: one may be its own."""
    block = SharedBlock(comm, [4] * comm.size, np.float64)

    def fail(view):
        raise ZeroDivisionError(view.size)

    def wrap(view):
        try:
            fail(view)
        except ZeroDivisionError as error:
            try:
                raise KeyError("a") from ValueError("b")
            except KeyError as other:
                raise error from error if comm.rank == 0 else other

    try:
        wrap(block.part(0)[1:])
    except ZeroDivisionError:
        assert block.free()


@pytest.mark.mpi(min_size=2)
def test_nodes(comm):
    nodes = Nodes(comm, colour=int(comm.rank >= 1))  # 1 and the others
    assert (nodes.n_nodes, nodes.n_slices) == (2, 1)
    assert nodes.node.size == (1 if comm.rank == 0 else comm.size - 1)
    if nodes.node.rank == 0:
        assert nodes.across.size == 2
        assert nodes.across.allgather(comm.rank) == [0, 1]
    else:
        assert nodes.across is None
    nodes.free()
    nodes = Nodes(comm)  # tests run on one machine
    assert (nodes.n_nodes, nodes.n_slices, nodes.across) == (1, comm.size, None)
    assert nodes.node.rank == comm.rank
    nodes.free()


@pytest.mark.parametrize("size, n32, n64", [(0, 0, 0), (1, 16, 8), (16, 16, 16)])
def test_padded(size, n32, n64):
    assert (padded(size, np.float32), padded(size, "float64")) == (n32, n64)


def test_require_space(tmp_path):
    require_space(0, "go")
    require_space(2**60, "go", folder=str(tmp_path / "missing"))
    with pytest.raises(ConfigError) as caught:
        require_space(2**60, "choose another", folder=str(tmp_path))
    assert f"{2**60:,} bytes are needed in {tmp_path}" in str(caught.value)
    assert "choose another" in str(caught.value)
