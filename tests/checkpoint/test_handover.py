"""Any rank reads any part of a state that lies in the memory of others."""

import numpy as np
import pytest

from pympi_train.backends.numpy import ops
from pympi_train.checkpoint import handover as handovers
from pympi_train.checkpoint import shares
from pympi_train.checkpoint.handover import Handover
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.flat.state import State, held

LAYOUT = Layout([Tensor("w", (7, 5)), Tensor("b", (3,))], np.float64)
N_OWNERS = 2  # the last rank has none of it


def part(comm):
    """A rank's part of a state: replicas, slices, and a block of each rank's own."""
    state, n = State(), LAYOUT.size
    if comm.rank >= N_OWNERS:
        return state
    block = np.arange(n, dtype=np.float64)
    state.add(held("params", LAYOUT, block, ops))
    half = [(0, n // 2, 0), (n // 2, n, 0)][comm.rank]
    own = 100 + block[half[0] : half[1]]
    state.add(held("slices", LAYOUT, own, ops, slices=[half]))
    mine = (1.0 + comm.rank) * block
    of_rank = (comm.rank, N_OWNERS)
    state.add(held("own", LAYOUT, mine, ops, of_rank=of_rank, mixing="sum"))
    state.values["told"] = {"rank": comm.rank}
    state.values[f"of {comm.rank}"] = float("nan")
    return state


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("least_bytes, has_room", [(1, True), (2**22, False)])
def test_state_of_others(comm, monkeypatch, least_bytes, has_room):
    def require_space(n_bytes, instead):
        if comm.rank == 1 and not has_room:
            raise ConfigError("no room")

    monkeypatch.setattr(shares, "LEAST_BYTES", least_bytes)
    monkeypatch.setattr(handovers, "require_space", require_space)
    state = part(comm)
    want = State.merged(comm.allgather(state))
    handover = Handover(comm, state, {"step": comm.rank})
    for regions in state.regions.values():
        for region in regions:
            region.array[...] = -1.0  # the training goes on
    found = handover.state
    assert handover.about == {"step": 0}
    assert found.values.keys() == want.values.keys() == {"told", "of 0", "of 1"}
    assert found.values["told"] == {"rank": 0}
    for name, regions in want.regions.items():
        rng = np.random.default_rng(comm.rank)  # not collective
        for _ in range(20):
            ends = [rng.integers(0, n + 1, 2) for n in regions[0].shape]
            box = tuple((int(min(e)), int(max(e))) for e in ends)
            shape = [high - low for low, high in box]
            outs = np.full(shape, -2.0), np.full(shape, -3.0)
            for one, out in zip((found, want), outs):
                one.read(name, regions[0].shape, box, out)
            np.testing.assert_array_equal(*outs)
    for count in (1, 2, 3):
        block = np.zeros(LAYOUT.size)
        of_rank = (comm.rank % count, count)
        how = {"of_rank": of_rank, "mixing": "sum"}
        holding = held("own", LAYOUT, block, ops, **how)
        arrays = [one.array_of(holding) for one in (found, want)]
        np.testing.assert_array_equal(*arrays)
    n_bytes = comm.allreduce(handover._block.size)
    assert n_bytes <= 4 * LAYOUT.size * 8 + 4096  # replicas are copied once
    handover.free()
    handover.free()
