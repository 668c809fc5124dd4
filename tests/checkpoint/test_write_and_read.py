"""States on the disk are those in memory, for every strategy and number of ranks."""

import json
import os
import shutil

import numpy as np
import pytest
import strategies
from numpy.testing import assert_array_equal
from safetensors import safe_open
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.checkpoint import folder, shares
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.checkpoint.write import write_checkpoint
from pympi_train.errors import DataError
from pympi_train.flat.state import State

STRATEGIES = {
    **strategies.PLAIN,
    **strategies.LOSSY,
    "nesterov": {**strategies.LOCAL, "outer": "nesterov"},
}


@pytest.fixture(autouse=True)
def small_shares(monkeypatch):
    monkeypatch.setattr(shares, "LEAST_BYTES", 512)


def make_trainer(comm, how):
    return pt.Trainer(
        pt.MLP(5, [24, 24], 3, dtype="float64"),
        pt.Adam(0.02),
        batch_size=24,
        parallel=pt.Parallel(**STRATEGIES[how]),
        backend="numpy",
        comm=comm,
    )


def trained(comm, how):
    trainer = make_trainer(comm, how)
    data = None
    if not trainer.serves:
        data = dataset(trainer.comm, "hole", *make_data("classes"))
    trainer.fit(data, epochs=1)
    return trainer


def in_order(regions):
    return sorted(regions, key=lambda region: region.box)


def require_same(found, want):
    assert found.values == want.values
    assert found.regions.keys() == want.regions.keys()
    for name, regions in want.regions.items():
        for region in regions:
            out = np.full(region.array.shape, np.nan, region.array.dtype)
            found.read(name, region.shape, region.box, out)
            assert_array_equal(out, region.array, err_msg=name)
        assert found.regions[name][0].n_blocks == regions[0].n_blocks
        counts = [
            sum(np.prod(r.array.shape, dtype=int) for r in state.regions[name])
            for state in (found, want)
        ]
        assert counts[0] == counts[1]  # nothing is written twice


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", STRATEGIES)
def test_state_of_each_strategy(comm, mpi_tmp_path, how):
    path = mpi_tmp_path / "one"
    with trained(comm, how) as trainer:
        n_bytes = trainer.save(path, about={"a": [1.5]}, texts={"t.txt": "ö"})
        want = State.merged(comm.allgather(trainer.state()))
    found = read_checkpoint(path, comm)
    assert (found.about["a"], found.text("t.txt")) == ([1.5], "ö")
    require_same(found.state, want)
    assert n_bytes == sum(entry.stat().st_size for entry in os.scandir(path))
    assert len(list(path.glob("rank-*.safetensors"))) == comm.size
    with make_trainer(comm, how) as trainer:
        trainer.load(path)
        require_same(found.state, State.merged(comm.allgather(trainer.state())))


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("how", ["allreduce", "sharded-3"])
def test_other_ranks_and_strategies_go_on(comm, mpi_tmp_path, how):
    from mpi4py import MPI

    with trained(comm, how) as trainer:
        trainer.save(mpi_tmp_path / "of three")
        want = trainer.params.copy()
    if comm.rank == 0:
        for other in ("allreduce", "sharded-2"):
            with make_trainer(MPI.COMM_SELF, other) as trainer:
                trainer.load(mpi_tmp_path / "of three")
                assert (trainer.params == want).all()
                trainer.save(mpi_tmp_path / f"of one {other}")
    comm.Barrier()
    with make_trainer(comm, "server") as trainer:
        trainer.load(mpi_tmp_path / "of one sharded-2")
        found = trainer.params
        assert trainer.serves or (found == want).all()


def test_files_can_be_read_without_this_package(tmp_path):
    from mpi4py import MPI

    with trained(MPI.COMM_SELF, "allreduce") as trainer:
        trainer.save(tmp_path / "one")
        want = trainer.weights()
    content = json.loads((tmp_path / "one" / "manifest.json").read_text())["content"]
    for name, array in want.items():
        out = np.empty_like(array)
        for region in content["tensors"][f"params/{name}"]["regions"]:
            box = ",".join(f"{low}:{high}" for low, high in region["box"])
            with safe_open(tmp_path / "one" / region["file"], "numpy") as file:
                part = file.get_tensor(f"params/{name}[{box}]")
            out[tuple(slice(*pair) for pair in region["box"])] = part
        assert_array_equal(out, array)


@pytest.fixture
def whole(comm, mpi_tmp_path):
    with trained(comm, "sharded-3") as trainer:
        trainer.save(mpi_tmp_path / "one", texts={"t.txt": "text"})
    return mpi_tmp_path / "one"


DAMAGES = {
    "missing": (os.remove, "missing; the checkpoint is not whole"),
    "truncated": (lambda p: os.truncate(p, 100), "expected .* bytes, found 100"),
    "flipped": (lambda p: _flip(p), "BLAKE2 hash is not that of the manifest"),
    "folder": (lambda p: (os.remove(p), os.mkdir(p)), "missing; the checkpoint is"),
}


def _flip(path):
    with open(path, "rb+") as file:
        file.seek(200)
        byte = file.read(1)[0]
        file.seek(200)
        file.write(bytes([byte ^ 16]))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_on_every_rank(comm, whole, damage):
    do, words = DAMAGES[damage]
    if comm.rank == 0:
        do(whole / "rank-000001.safetensors")
    comm.Barrier()
    with pytest.raises(DataError, match=f"rank-000001.safetensors: .*{words}"):
        read_checkpoint(whole, comm)


@pytest.mark.mpi(min_size=2)
def test_swapped_files_are_found(comm, whole):
    if comm.rank == 0:
        a, b = (whole / f"rank-00000{i}.safetensors" for i in (0, 1))
        shutil.copy(a, whole / "c"), shutil.copy(b, a), shutil.copy(whole / "c", b)
    comm.Barrier()
    with pytest.raises(DataError, match="rank-000000.safetensors"):
        read_checkpoint(whole, comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("failing", [0, 1])
def test_rank_that_cannot_write(comm, mpi_tmp_path, monkeypatch, failing):
    """All ranks raise its error, and nothing is left."""
    if comm.rank == failing:

        def full(path, chunks):
            raise DataError(f"{path}: cannot be written: No space left on device")

        monkeypatch.setattr(folder, "write_file", full)
    with trained(comm, "sharded-3") as trainer:
        with pytest.raises(DataError, match="No space left on device"):
            trainer.save(mpi_tmp_path / "one")
        comm.Barrier()
        assert list(mpi_tmp_path.iterdir()) == []
        monkeypatch.undo()
        monkeypatch.setattr(shares, "LEAST_BYTES", 512)
        trainer.save(mpi_tmp_path / "one")
        with pytest.raises(DataError, match="one: cannot be written: it exists"):
            trainer.save(mpi_tmp_path / "one")


@pytest.mark.mpi(min_size=2)
def test_no_checkpoint(comm, mpi_tmp_path):
    with pytest.raises(DataError, match="none: no such checkpoint"):
        read_checkpoint(mpi_tmp_path / "none", comm)
    with pytest.raises(DataError, match="no manifest.json; is it a checkpoint"):
        read_checkpoint(mpi_tmp_path, comm)


@pytest.mark.mpi(min_size=2)
def test_ranks_that_hold_different_parts(comm, mpi_tmp_path):
    """Some blocks are held by all, some by each rank, some by one: all come back."""
    state = State({f"of rank {comm.rank}": comm.rank})
    from pympi_train.flat.state import Region

    whole = np.arange(40.0).reshape(8, 5)
    rows = np.array_split(np.arange(8), comm.size)[comm.rank]
    box = ((int(rows[0]), int(rows[-1]) + 1), (0, 5))
    state.regions["all/w"] = [Region((8, 5), ((0, 8), (0, 5)), whole)]
    state.regions["own/w"] = [Region((8, 5), box, whole[rows])]
    state.blocks = {"all": {"all/w": None}, "own": {"own/w": None}}
    if comm.rank == comm.size - 1:
        state.regions["one/w"] = [Region((), (), np.array(3.0))]
        state.blocks["one"] = {"one/w": None}
    write_checkpoint(state, mpi_tmp_path / "one", comm)
    found = read_checkpoint(mpi_tmp_path / "one", comm).state
    require_same(found, State.merged(comm.allgather(state)))
