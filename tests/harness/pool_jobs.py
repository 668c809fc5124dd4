"""Small jobs of a pool, what each gives alone, and what the pool's log says."""

import json

from small_runs import TEXT, write_rows

from pympi_train.config.config import parse
from pympi_train.runs import job

HOW = [
    "model.kind=softmax",
    "model.dtype=float64",
    "optimizer.name=adam",
    "optimizer.learning_rate=0.01",
    "train.epochs=3",
    "parallel.reduction=exact",
]


def folder_with_rows(path, comm):
    """Write the rows of the jobs; return the folder. Collective."""
    if comm.rank == 0:
        write_rows(path)
    comm.Barrier()
    return path


def config_of(folder, name, *overrides):
    told = [f"output.directory={name}", *HOW, *overrides]
    return parse(TEXT, folder=folder, overrides=told)


def alone(folder, *overrides):
    """Return the hash of the weights that a job has alone, on one rank."""
    from mpi4py import MPI

    config = config_of(folder, "alone", *overrides)
    return job.train(config, MPI.COMM_SELF)["weights_sha256"]


def events(folder, kind):
    lines = (folder / "pool" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
