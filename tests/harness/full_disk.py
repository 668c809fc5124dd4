"""Run under mpirun on a file system of one megabyte, its argument, that gets full."""

import os
import sys

import crash_runs
import numpy as np
from mpi4py import MPI

from pympi_train.checkpoint import shares, store
from pympi_train.checkpoint.write import write_checkpoint
from pympi_train.errors import DataError
from pympi_train.flat.state import Region

FLOATS = 2**17  # of 8 bytes: one megabyte


def too_large():
    """Return a State of which each rank writes less than the disk can hold."""
    state = crash_runs.state_at(20)
    box = ((0, FLOATS),)
    state.regions["params/large"] = [Region((FLOATS,), box, np.ones(FLOATS))]
    state.blocks["params"]["params/large"] = None
    return state


def main(folder):
    comm = MPI.COMM_WORLD
    shares.LEAST_BYTES = 64
    directory = os.path.join(folder, "checkpoints")
    crash_runs.save(directory, 10, comm)
    errors = []
    for number in range(3):
        path = os.path.join(directory, f"{number + 2:06d}-step-20")
        try:
            write_checkpoint(too_large(), path, comm)
        except DataError as error:
            errors.append(str(error))
    found, remarks = store.newest(directory, comm)
    assert (crash_runs.loaded_step(found), remarks) == (10, [])
    assert comm.allgather(errors) == [errors] * comm.size
    crash_runs.save(directory, 30, comm)
    assert crash_runs.loaded_step(store.newest(directory, comm)[0]) == 30
    if comm.rank == 0:
        store.prune(directory, 1)
        (name,) = os.listdir(directory)
        print(*errors, name, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
