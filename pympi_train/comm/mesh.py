"""The world communicator, and the ranks that share a node."""

import os

from pympi_train.backends import threads
from pympi_train.comm import launcher
from pympi_train.comm.watch import abort, survivors
from pympi_train.errors import LaunchError


def world():
    """Return COMM_WORLD, without ranks that died. The first call starts MPI.

    After the first call, an uncaught exception on one rank ends the whole job
    (``abort.install``), because the other ranks would wait for that rank forever.

    Raises
    ------
    LaunchError
        If there is no MPI library, or the launcher belongs to another library.
    """
    MPI = launcher.load_mpi()
    comm = survivors.current_world()
    if comm != MPI.COMM_WORLD:
        return comm
    wrong = launcher.mismatch(os.environ, comm.size, MPI.Get_library_version())
    if wrong:
        raise LaunchError(wrong)
    abort.install()
    return comm


# By the size of the world: CPU sets of this node's ranks, after a call with the world.
_world_masks: dict = {}


def share_of_node(comm):
    """Return (this rank's CPUs, the list of the CPU sets of the node's ranks).

    The list covers all ranks of the program on this node, in any communicator. If
    this function was never called with the whole world, the ranks outside ``comm``
    are counted by the launcher's number of ranks on the node, and are assumed to have
    the CPUs of this rank. They are not counted if the ranks of ``comm`` have disjoint
    CPU sets.

    Notes
    -----
    Collective.
    """
    from mpi4py import MPI

    own, world_size = threads.affinity(), survivors.current_world().size
    if world_size in _world_masks:
        return own, _world_masks[world_size]
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        masks = [set(mask) for mask in node.allgather(sorted(own))]
    finally:
        node.Free()
    if comm.size == world_size:
        _world_masks[world_size] = masks
        return own, masks
    are_bound = len(masks) > 1 and sum(map(len, masks)) == len(set().union(*masks))
    n_others = launcher.local_size(os.environ) - len(masks)
    return own, masks if are_bound else masks + [own] * n_others


class Nodes:
    """Communicators of the ranks of this node and of matching ranks across nodes.

    Parameters
    ----------
    comm : MPI.Comm
    colour : int, optional
        Ranks of the same colour count as one node. By default, ranks that can share
        memory do.

    Attributes
    ----------
    node : MPI.Comm
        The ranks of this node, in the order of ``comm``.
    across : MPI.Comm or None
        The ranks with this rank's number on their node, one per node. None if some
        node has no rank of that number, or if there is only one node.
    n_nodes : int
    n_slices : int
        Number of ranks of the smallest node. Every node has the numbers below it.

    Notes
    -----
    Collective.
    """

    def __init__(self, comm, colour=None):
        from mpi4py import MPI

        if colour is None:
            self.node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
        else:
            self.node = comm.Split(colour, key=comm.rank)
        self.n_slices = comm.allreduce(self.node.size, op=MPI.MIN)
        self.n_nodes = comm.allreduce(int(self.node.rank == 0))
        self.across = None
        if self.n_nodes > 1:
            owner = self.node.rank < self.n_slices
            number = self.node.rank if owner else MPI.UNDEFINED
            across = comm.Split(number, key=comm.rank)
            self.across = across if owner else None

    def free(self):
        """Free the communicators. Collective."""
        self.node.Free()
        if self.across is not None:
            self.across.Free()


def set_threads(comm):
    """Limit this rank to its share of the node's CPUs; return its number of threads.

    Notes
    -----
    Collective.
    Call this before a backend is loaded, because Numba reads its number of threads
    when it is loaded.
    """
    return threads.limit(threads.share(*share_of_node(comm)))


def share_nodes(comm):
    """Return whether some ranks of ``comm`` share a node.

    Notes
    -----
    Collective.
    """
    nodes = Nodes(comm)
    nodes.free()
    return nodes.n_nodes < comm.size
