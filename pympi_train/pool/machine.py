"""What the ranks of a pool run on: nodes, GPUs and memory."""

import numpy as np

from pympi_train.backends import gpu
from pympi_train.backends.node_memory import available_bytes
from pympi_train.comm.devices import local_rank
from pympi_train.comm.messages import numbers_of_ranks, objects_of_ranks
from pympi_train.pool.room import Machine


def machine_of(comm):
    """Return the `Machine` of the ranks of ``comm``. Collective."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    first = node.allreduce(comm.rank, op=MPI.MIN)
    node.Free()
    firsts, nodes = np.unique(numbers_of_ranks(comm, first), return_inverse=True)
    own, unavailable = None, "cupy is not installed"
    if gpu.is_installed():
        unavailable = gpu.unavailable(local_rank(comm))
    if not unavailable:
        from pympi_train.backends.cuda import device

        own = f"{nodes[comm.rank]} {device.device().uuid}"
    gpus: list = [None] * comm.size
    for rank, name in objects_of_ranks(comm, own).items():
        gpus[rank] = name
    memory = np.empty(len(firsts))
    memory[nodes] = numbers_of_ranks(comm, available_bytes(), dtype=np.float64)
    return Machine(nodes.tolist(), gpus, memory.tolist())
