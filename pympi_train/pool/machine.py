"""What the ranks of a pool run on: nodes, GPUs and memory."""

from pympi_train.backends import gpu
from pympi_train.backends.node_memory import available_bytes
from pympi_train.comm.devices import local_rank
from pympi_train.pool.room import Machine


def machine_of(comm):
    """Return the `Machine` of the ranks of ``comm``. Collective."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    firsts = comm.allgather(node.allreduce(comm.rank, op=MPI.MIN))
    node.Free()
    number = {first: i for i, first in enumerate(sorted(set(firsts)))}
    nodes = [number[first] for first in firsts]
    own, unavailable = None, "cupy is not installed"
    if gpu.is_installed():
        unavailable = gpu.unavailable(local_rank(comm))
    if not unavailable:
        from pympi_train.backends.cuda import device

        own = f"{nodes[comm.rank]} {device.device().uuid}"
    gpus = comm.allgather(own)
    memory = dict(zip(nodes, comm.allgather(available_bytes())))
    return Machine(nodes, gpus, [memory[i] for i in range(len(number))])
