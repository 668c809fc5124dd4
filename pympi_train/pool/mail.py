"""Small messages between single ranks of a pool."""

import json
import time

import numpy as np

REPORTS, ORDERS = 1, 2  # tags: to the coordinator, to any rank
THOROUGH_S = 0.05  # between two looks for messages of all ranks of the node
MOST_LOOKS = 256  # of 1.3 us: less than 1 % of THOROUGH_S


class Mail:
    """Sends and receives small messages, without waiting.

    Parameters
    ----------
    comm : MPI.Intracomm
        Of all ranks of the pool, for nothing but these messages and the making of
        groups.
    tag : int
        REPORTS or ORDERS: the messages to receive.

    Notes
    -----
    A message is a dict of plain values, sent as JSON. Messages of one sender and one
    tag arrive in their order. Each thread has an object of its own.
    """

    def __init__(self, comm, tag):
        self.comm, self._tag = comm, tag
        self._looked_s = -THOROUGH_S
        self._under_way = []  # requests, and the buffers that they read

    def order(self, rank, **message):
        """Send a message to a rank."""
        self._send(rank, ORDERS, message)

    def report(self, **message):
        """Send a message to the coordinator, on rank 0."""
        self._send(0, REPORTS, message)

    def _send(self, rank, tag, message):
        block = np.frombuffer(json.dumps(message).encode(), np.uint8)
        self._under_way.append((self.comm.Isend(block, rank, tag), block))
        self._under_way = [sent for sent in self._under_way if not sent[0].Test()]

    def receive(self):
        """Return the next message that has arrived, a dict; None if there is none.

        Its "from" is the rank that sent it.
        """
        from mpi4py import MPI

        status = MPI.Status()
        # MPICH lets in messages of one more rank of the node with each look.
        now_s = time.monotonic()
        is_thorough = now_s - self._looked_s >= THOROUGH_S
        for _ in range(min(self.comm.size, MOST_LOOKS) if is_thorough else 1):
            found = self.comm.Improbe(MPI.ANY_SOURCE, self._tag, status)
            if found is not None:
                break
        else:
            if is_thorough:
                self._looked_s = now_s
            return None
        block = np.empty(status.Get_count(MPI.BYTE), np.uint8)
        found.Recv(block)
        return {**json.loads(block.tobytes()), "from": status.source}

    def finish(self):
        """Wait until all messages have left."""
        for request, _ in self._under_way:
            request.Wait()
        self._under_way.clear()


def spans(ranks):
    """Return rank numbers in short: runs of consecutive ones as [first, last].

    Examples
    --------
    >>> spans([4, 5, 6, 0])
    [[4, 6], [0, 0]]
    """
    found = []
    for rank in ranks:
        if found and rank == found[-1][1] + 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return found


def spanned(found):
    """Return the list of rank numbers of which `spans` made ``found``."""
    return [rank for first, last in found for rank in range(first, last + 1)]
