"""Calls in the body of a pool that other ranks would have to join: they are refused."""

from functools import partial

import pytest
from small_runs import write_rows

import pympi_train as pt
from pympi_train.config.config import parse
from pympi_train.errors import ConfigError
from pympi_train.search.lr_range import lr_range
from pympi_train.search.run import search

TEXT = """
[data]
train = "rows.npz"
[model]
kind = "softmax"
[train]
epochs = 1
backend = "numpy"
[output]
directory = "run"
[search]
param = "model.l2=0,1"
"""


@pytest.mark.mpi(min_size=2)
def test_collective_calls_in_the_body(comm, mpi_tmp_path):
    """Before, rank 0 waited for the others for ever."""
    from mpi4py import MPI

    folder, pair = mpi_tmp_path, comm.Split(comm.rank // 2)
    if comm.rank == 0:
        write_rows(folder)
    with pt.Ranks(comm) as ranks, pt.Pool(comm, directory=folder / "pool") as pool:
        if pool is not None:
            config = parse(TEXT, folder=folder)
            calls = [
                lambda of: pt.Pool(of, directory=folder / "inner").__enter__(),
                pt.Ranks,
                partial(pt.load, folder / "rows.npz"),
                lambda of: search(partial(parse, TEXT, folder=folder), of),
                partial(lr_range, config),
            ]
            for of in (comm, pair, ranks.comm):
                for call in calls[:2] if of is pair else calls:
                    with pytest.raises(ConfigError, match="in the body of a pool"):
                        call(comm=of) if call is calls[2] else call(of)
            with pytest.raises(ConfigError, match="in the body of a pool"):
                pt.Trainer(pt.Linear(2), pt.SGD(0.1), comm=ranks)
            future = pool.submit(config, min_ranks=comm.size)
            assert future.result()["epochs"] == 1
            with pytest.raises(ConfigError, match="in the body of a pool"):
                pt.Ranks(comm)
            with pt.Pool(MPI.COMM_SELF, directory=folder / "inner") as inner:
                own = parse(TEXT, folder=folder, overrides=["output.directory=own"])
                assert inner.submit(own, min_ranks=None).result()["epochs"] == 1
    pt.Ranks(comm).free()
    pair.Free()
