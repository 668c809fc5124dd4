"""Small trained runs with checkpoints."""

import numpy as np
import pytest
from small_runs import train_small

HOW = [
    "data.train=rows.csv",
    "data.target=y",
    "data.validation=0.25",
    "train.epochs=2",
    "checkpoint.every_steps=3",
    "checkpoint.keep=9",
]


def table(n=64):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, 3)) * [1, 50, 0.1] + [0, 1e3, 5]
    return x, np.arange(n) % 3


def train_run(folder, comm, *overrides, label=lambda x, kind: "abc"[kind]):
    """Train, and return the run directory. Collective."""
    if comm.rank == 0:
        x, kinds = table()
        lines = [
            f"{','.join(map(repr, row.tolist()))},{label(row, kind)}"
            for row, kind in zip(x, kinds)
        ]
        (folder / "rows.csv").write_text("\n".join(["p,q,r,y", *lines]) + "\n")
    comm.Barrier()
    train_small(folder, comm, *HOW, *overrides)
    return folder / "run"


@pytest.fixture
def trained(tmp_path):
    """Train alone: ``trained(*overrides, label=...)`` returns (run, features)."""
    from mpi4py import MPI

    def train(*overrides, **how):
        return train_run(tmp_path, MPI.COMM_SELF, *overrides, **how), table()[0]

    return train


@pytest.fixture
def run(comm, mpi_tmp_path):
    """A run of all ranks, whose parameters are spread over them."""
    how = "parallel.strategy=sharded", "parallel.stage=3"
    return train_run(mpi_tmp_path, comm, *how)
