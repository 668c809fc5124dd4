"""The order "window": equal bits wherever the rows are, on any number of ranks."""

import tomllib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from spread import dataset

import pympi_train as pt
from pympi_train.config.config import parse
from pympi_train.data.sources import mapped
from pympi_train.data.sources.mapped import MappedDataset
from pympi_train.errors import ConfigError, DataError, RankMismatchError
from pympi_train.runs import job

N, D, BATCH = 211, 5, 24
WINDOWS = {"order": "window", "order_shards": 8, "order_window": 6}
EXACT = pt.Parallel(reduction="exact", virtual_shards=8, timeout_s=0)


@pytest.fixture
def file(mpi_tmp_path, comm):
    """Two .npy files of features as one data set, and the arguments that read it."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((N, D)), rng.integers(0, 3, N)
    if comm.rank == 0:
        for i, rows in enumerate((slice(0, 90), slice(90, N))):
            np.save(mpi_tmp_path / f"x{i}.npy", x[rows])
            np.save(mpi_tmp_path / f"y{i}.npy", y[rows])
    comm.Barrier()
    return mpi_tmp_path / "x*.npy", {"target": "y*.npy", "validation": 0.2}


def trained(file, comm, parallel=None, **kwargs):
    path, how = file
    data = pt.load(path, **how, **kwargs, comm=comm)
    assert isinstance(data.train, MappedDataset) == (kwargs["memory"] == "mapped")
    with pt.Trainer(
        pt.MLP(D, [4], 3),
        pt.Adam(0.02),
        batch_size=BATCH,
        backend="numpy",
        parallel=parallel or pt.Parallel(timeout_s=0),
        comm=comm,
    ) as trainer:
        trainer.fit(data.train, data.validation, epochs=2)
        return trainer.params.copy()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("standardize", [False, True])
def test_bits_are_equal_in_memory_and_mapped_on_any_ranks(comm, file, standardize):
    from mpi4py import MPI

    how = {"standardize": standardize, **WINDOWS}
    shards = {"virtual_shards": 8, **how}
    want = trained(file, MPI.COMM_SELF, EXACT, memory="in-memory", **shards)
    for ranks in (MPI.COMM_SELF, comm):
        for memory in ("in-memory", "mapped"):
            found = trained(file, ranks, EXACT, memory=memory, **shards)
            assert_array_equal(found, want)
    fast = [trained(file, comm, memory=m, **how) for m in ("in-memory", "mapped")]
    assert_array_equal(*fast)
    how["order"], how["order_shards"], how["order_window"] = "full", None, None
    assert abs(trained(file, comm, memory="mapped", **how) - fast[0]).max() > 1e-4


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
def test_rows_are_read_ahead_wherever_they_move(comm, spread, file, monkeypatch):
    """Each window once an epoch, by the rank that has it, before it is needed."""
    asked = []
    monkeypatch.setattr(mapped, "read_soon", lambda rows: asked.append(len(rows)))
    data = pt.load(file[0], **file[1], memory="mapped", **WINDOWS, comm=comm).train
    with pt.Trainer(
        pt.Softmax(D, 3), pt.GD(0.1), batch_size=BATCH, parallel=EXACT, comm=comm
    ) as trainer:
        trainer.fit(data, epochs=1)
        assert not asked, "gradient descent reads the file from start to end"
    with pt.Trainer(
        pt.Softmax(D, 3), pt.SGD(0.1), batch_size=BATCH, parallel=EXACT, comm=comm
    ) as trainer:
        trainer.fit(data, epochs=1)
    # Rows between the first and last training row of a window are read with it.
    assert data.n <= sum(comm.allgather(sum(asked))) <= N
    x, y = np.zeros((N, 2)), np.zeros((N, 1))
    rows = dataset(comm, spread, x, y)  # in memory nothing is read ahead
    rows.read_ahead(np.array([[0, 1]]))


@pytest.mark.mpi(min_size=2)
def test_arguments_that_make_no_sense_are_refused_by_all(comm, file):
    path, how = file
    data = pt.load(path, **how, order="window", order_shards=2, comm=comm)
    if comm.size > 2:
        (remark,) = [text for text in data.remarks if "order shards" in text]
        assert f"{comm.size} ranks share 2 order shards" in remark
        assert "order_shards = 4" in remark
    for wrong, match in (
        ({"memory": "stream"}, "memory = .stream. needs order"),
        ({"order": "windows"}, "order must be 'full' or 'window', got 'windows'"),
        ({"order_window": 5}, 'are for order = "window"'),
        ({"order": "window", "order_shards": 3}, "must be a power of two"),
        ({"order": "window", "order_shards": 256}, "169 training rows: .* 128 or less"),
        ({"order": "window", "order_window": 0}, "order_window"),
    ):
        with pytest.raises(ConfigError, match=match):
            pt.load(path, **how, **wrong, comm=comm)
    with pytest.raises(RankMismatchError, match="order of the rows"):
        order = pt.WindowOrder(2, 5 + (comm.rank == 1))
        pt.Dataset(np.zeros((4, 2)), np.zeros((4, 1)), order=order, comm=comm)
    whole = pt.Dataset.split(*np.zeros((2, 99, 1)), order="window", comm=comm)
    assert whole.order == pt.WindowOrder(4, 2**21)
    csv = path.parent / "rows.csv"
    if comm.rank == 0:
        csv.write_text("a,y\n" + "1,0\n2,1\n" * 20)
    comm.Barrier()
    with pytest.raises(DataError, match='rows.csv: memory = "mapped" .* data convert'):
        pt.load(csv, target="y", memory="mapped", comm=comm)


JOB = """
[data]
train = "{folder}/x*.npy"
target = "{folder}/y*.npy"
validation = 0.2
memory = "mapped"
order = "window"
[model]
kind = "softmax"
[train]
epochs = 2
batch_size = 24
[parallel]
timeout_s = 0
[output]
directory = "{folder}/run"
"""


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("override", [(), ("data.order_window=6",)])
def test_the_order_is_kept_in_the_resolved_configuration(comm, file, override):
    folder = file[0].parent
    config = parse(JOB.format(folder=folder), overrides=override)
    found = job.train(config, comm)
    text = (folder / "run" / "config.toml").read_text()
    data = tomllib.loads(text)["data"]
    assert (data["order"], data["memory"]) == ("window", "mapped")
    assert data["order_shards"] == 8  # as many as order "full" has
    assert data["order_window"] == (6 if override else 2**27 // 8 // 28)
    again = parse(text, literal_paths=True, overrides=["data.memory=in-memory"])
    assert again.data.order_window == data["order_window"]
    again = job.train(again, comm)
    assert again["weights_sha256"] == found["weights_sha256"]
