"""Servers hold the parameters; workers send them gradients. The worker's side."""

import math
from contextlib import contextmanager

import numpy as np

from pympi_train.comm.checks import raise_together
from pympi_train.comm.watch.guard import wait_all
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.parallel.base import WholeGradient
from pympi_train.parallel.server import mail
from pympi_train.parallel.server.mail import Reply, Request


class Worker(WholeGradient):
    r"""Computes gradients, sends them to the servers, and fetches parameters.

    Each server has a slice of the parameters and of the optimizer's state. An update
    is done when the gradients of *all* workers for a global batch are there, so that
    version :math:`v` of the parameters is what :math:`v` global batches left.

    With ``staleness`` :math:`s = 0` the ranks take the steps of one process. With
    :math:`s > 0` a worker goes on to batch :math:`b` as soon as each slice has
    version :math:`b - 1 - s`, and takes the newest there is: no worker is more than
    :math:`s` steps ahead of the slowest, which is the stale synchronous parallel of
    [2]_. Slices from different servers may then be of different versions.

    Parameters
    ----------
    roles : Roles
        Freed by the Trainer.
    layout, ops
        As for `Strategy`.
    staleness : int
    compression : {"none", "fp16", "bf16", "int8"}
        Of gradients, with error feedback on the worker; parameters come as they are.

    Attributes
    ----------
    versions : ndarray, shape (servers,)
        Updates in each server's slice of ``params``.

    Notes
    -----
    For :math:`W` workers, :math:`S` servers and :math:`n` parameters, a worker sends
    :math:`n` elements a step and receives :math:`n`, in :math:`S` messages each way,
    with a message of 64 or 24 bytes before each; compressed, it sends what
    `comm.wires.Wire.bytes` says in place of :math:`n` elements. A server sends and
    receives :math:`W n / S` elements: with few servers their network is what takes
    time, where Allreduce needs :math:`2 n (P - 1) / P` a rank. The gradient has left
    before a worker goes on; it is not sent while the next one is computed.
    A worker holds :math:`2 n` elements, with compression :math:`n` more and the codes,
    and no state of the optimizer; a server
    :math:`(2 + s + 1) n / S` and its slice of the state.

    References
    ----------
    .. [1] M. Li et al., "Scaling Distributed Machine Learning with the Parameter
       Server", OSDI 2014.
    .. [2] Q. Ho et al., "More Effective Distributed ML via a Stale Synchronous
       Parallel Parameter Server", NIPS 2013.
    """

    def __init__(self, roles, layout, ops, staleness=0, compression="none"):
        super().__init__(roles.comm, layout, None, ops)
        self.synchronous = staleness == 0
        self.chosen = {
            "strategy": "server",
            "servers": roles.n_servers,
            "staleness": staleness,
        }
        self._roles, self._staleness = roles, staleness
        self._slices = mail.slices(layout, roles.n_servers)
        self._replies = np.zeros((roles.n_servers, len(Reply._fields)))
        self._pushed = 0
        self._wire = mail.wire(compression, ops)
        if self._wire is not None:
            self._residual = empty_block(layout)
            sizes = [own.stop - own.start for own in self._slices]
            self._codes = [np.empty(self._wire.bytes(n), np.uint8) for n in sizes]

    @property
    def versions(self):
        return self._replies[:, Reply._fields.index("version")].copy()

    @contextmanager
    def fitting(self):
        """Train in the body: servers serve so long, and raise what all workers raise.

        They start from worker 0's parameters. Collective over workers and servers.
        """
        with self._roles.told():
            self._pushed, self._replies[:] = 0, 0
            if self._wire is not None:
                self._residual[:] = 0
            self.restored()
            try:
                yield
            except Exception as error:
                if self._roles.raised_by_all(error):
                    self._exchange(Request(mail.LEAVE))
                raise
            self._exchange(Request(mail.LEAVE))

    def restored(self):
        """Give the servers worker 0's parameters."""
        parts = [self.params[own] for own in self._slices] if self._first else None
        self._exchange(Request(mail.LOAD), parts)

    @property
    def _first(self):
        return self.comm.rank == 0

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Send the gradient, and receive the parameters after the update of all."""
        # All workers know the batch's weight; the servers add up what they are told.
        weight = weight if self._first else 0.0
        self._push(mail.PUSH, lr=lr, weight=weight, l2=l2, clip_norm=clip_norm or 0.0)

    def advance(self, *, lr, weight, loss, l2, clip_norm, error):
        """Send the gradient of this rank's share; receive parameters for the next.

        Waits only until no rank is more than ``staleness`` steps behind.

        Raises
        ------
        DivergenceError
            On every worker, if loss or gradient of a batch is NaN or infinite; the
            parameters are those before that batch.
        RemoteRankError
            On every worker, if one brought an error; that worker raises its own.
        """
        self._push(
            mail.PUSH if error is None else mail.FAIL,
            error,
            lr=lr,
            weight=weight,
            loss=loss,
            l2=l2,
            clip_norm=clip_norm or 0.0,
        )

    def settle(self):
        """Fetch what all workers' batches have left."""
        if (self.versions < self._pushed).any():
            self._exchange(Request(mail.FETCH, want=self._pushed), fetch=True)
            self._heed()

    def _push(self, kind, error=None, **numbers):
        step = self._pushed + 1
        # One that failed waits for the others to come to the same step.
        ahead = self._staleness if kind == mail.PUSH else 0
        request = Request(kind, step, step - ahead, **numbers)
        parts = self._parts_of_gradient() if kind == mail.PUSH else None
        self._exchange(request, parts, fetch=True)
        self._heed(error)
        self._pushed = step
        self.laps.lap("communication")

    def _parts_of_gradient(self):
        """Return what each server is sent."""
        if self._wire is None:
            return [self.grads[own] for own in self._slices]
        for own, codes in zip(self._slices, self._codes):
            self._wire.encode(self.grads[own], codes, self._residual[own])
        return self._codes

    def _exchange(self, request, parts=None, *, fetch=False, servers=None):
        """Send ``request`` to all servers, or some, and each its one of ``parts``.

        With ``fetch``, receive their replies and parameters. All messages are under
        way at once, and no server waits for another worker to read this one's.
        """
        header, under_way = mail.encoded(request), []
        if servers is None:
            servers = range(len(self._slices))
        comm = self._roles.everyone
        for server in servers if fetch else ():
            rank = self._roles.n_workers + server
            under_way.append(comm.Irecv(self._replies[server], rank, mail.REPLY))
            for piece in mail.pieces(self.params[self._slices[server]]):
                under_way.append(comm.Irecv(piece, rank, mail.PARAMETERS))
        for server in servers:
            rank = self._roles.n_workers + server
            under_way.append(comm.Isend(header, rank, mail.REQUEST))
            if parts is not None:
                for piece in mail.pieces(parts[server]):
                    under_way.append(comm.Isend(piece, rank, mail.GRADIENT))
                self.sent_bytes += parts[server].nbytes
            self.sent_bytes += header.nbytes
        wait_all(comm, under_way)

    def _heed(self, error=None):
        """Raise, on all workers, what the servers found."""
        verdicts = self._replies[:, 0]
        if not verdicts.any():
            return
        # A server that has answered before it knew will know, and then has the
        # parameters of the same version.
        unaware = np.flatnonzero(verdicts == mail.GOOD)
        aware = np.flatnonzero(verdicts != mail.GOOD)
        reason = self._reasons(aware)
        if unaware.size:
            last = Request(mail.FETCH, want=math.inf)
            self._exchange(last, fetch=True, servers=unaware)
            self._reasons(unaware)
        if verdicts[0] == mail.FAILED:
            raise_together(self.comm, error)
        diverged = DivergenceError(reason)
        diverged.undone = self._pushed - int(self.versions[0])
        raise diverged

    def _reasons(self, servers):
        text = b""
        for server in servers:
            reply = Reply(*self._replies[server].tolist())
            text = bytearray(int(reply.n_reason))
            rank = self._roles.n_workers + int(server)
            self._roles.everyone.Recv(text, rank, mail.REASON)
        return text.decode()
