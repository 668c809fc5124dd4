"""The ranks: the world, and which of them share a node."""

import os

from pympi_train.backends import threads
from pympi_train.comm import launcher
from pympi_train.comm.watch import abort
from pympi_train.errors import LaunchError


def world():
    """Return COMM_WORLD; starts MPI when first called.

    From then on an exception that reaches the top of one rank ends the whole job
    (``abort.install``), since the others would wait for that rank for ever.

    Raises
    ------
    LaunchError
        If there is no MPI library, or the launcher belongs to another one.
    """
    MPI = launcher.load_mpi()
    comm = MPI.COMM_WORLD
    wrong = launcher.mismatch(os.environ, comm.size, MPI.Get_library_version())
    if wrong:
        raise LaunchError(wrong)
    abort.install()
    return comm


_world_masks: list = []  # the CPU sets of this node's ranks, once the world has met


def share_of_node(comm):
    """Return (this rank's CPUs, the list of the CPU sets of the node's ranks).

    Of all ranks of the program, whatever communicator they work in. If the world has
    never met here and ``comm`` is a part of it, the launcher's number of ranks on the
    node counts, and each other one is taken to have the CPUs of this one, unless the
    ranks of ``comm`` all have CPUs of their own.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    from mpi4py import MPI

    own = threads.affinity()
    if _world_masks:
        return own, _world_masks
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        masks = [set(mask) for mask in node.allgather(sorted(own))]
    finally:
        node.Free()
    if comm.size == MPI.COMM_WORLD.size:
        _world_masks[:] = masks
        return own, masks
    are_bound = len(masks) > 1 and sum(map(len, masks)) == len(set().union(*masks))
    n_others = launcher.local_size(os.environ) - len(masks)
    return own, masks if are_bound else masks + [own] * n_others


class Nodes:
    """The ranks by node, and what belongs together across nodes.

    Parameters
    ----------
    comm : MPI.Comm
    colour : int, optional
        Ranks of one colour count as one node; by default those that can share memory.

    Attributes
    ----------
    node : MPI.Comm
        The ranks of this node, in the order of ``comm``.
    across : MPI.Comm or None
        One rank of each node, all of the same number there; None where not every node
        has a rank of that number, or there is one node.
    n_nodes : int
    n_slices : int
        Ranks of the smallest node: the numbers that every node has.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
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
    """Give this rank its share of the node's CPUs; return the threads it has.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    To be called before a backend is loaded: Numba reads its number of threads then.
    """
    return threads.limit(threads.share(*share_of_node(comm)))


def share_nodes(comm):
    """Return whether some ranks of ``comm`` share a node.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    nodes = Nodes(comm)
    nodes.free()
    return nodes.n_nodes < comm.size
