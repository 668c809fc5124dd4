"""A communicator that only pretends to have many ranks, and the list of cases."""

import pickle

N = 2**20  # parameters
NODE = 64  # ranks a node
CASES = []  # (when, name, file, function of the number of ranks)


class Request:
    """A request that is over."""

    def Wait(self):
        pass


class Mock:
    """A communicator of rank 1 of ``size``; every rank passes what this rank does."""

    rank = 1

    def __init__(self, size):
        self.size, self.n_bytes = size, 0

    def _silent(self, *args, **kwargs):
        return Request()

    Allreduce = Allgatherv = Alltoallv = Bcast = Barrier = _silent
    Reduce_scatter = Ialltoallv = Iallgatherv = Iallreduce = Free = _silent
    Isend = Recv = Sendrecv = _silent

    def Allgather(self, own, everyones):
        everyones[...] = own

    def allgather(self, value):
        text = pickle.dumps(value)
        self.n_bytes += self.size * len(text)
        return [pickle.loads(text) for _ in range(self.size)]

    def allreduce(self, value, op=None):
        return value

    def bcast(self, value, root=0):
        return value

    def Split_type(self, *args, **kwargs):
        return Mock(min(self.size, NODE))

    Dup = Split = Split_type


def case(when, name, file):
    """Return a decorator that adds ``make(size)``, which returns what to time."""

    def add(make):
        CASES.append((when, name, file, make))
        return make

    return add


def layout():
    from pympi_train.flat.memory import Layout, Tensor

    return Layout([Tensor("w", (N // 1024, 1024)), Tensor("b", (1024,))], "float32")
