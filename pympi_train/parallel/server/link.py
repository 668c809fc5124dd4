"""The messages of one worker to the servers, and of the servers to it."""

import math
from contextlib import contextmanager

import numpy as np

from pympi_train.comm.checks import raise_together
from pympi_train.comm.watch.guard import wait_all
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.flat.state import held
from pympi_train.parallel.base import leave
from pympi_train.parallel.server import mail
from pympi_train.parallel.server.mail import Reply, Request


class Link:
    """Sends a worker's gradients to the servers, and fetches parameters from them.

    Parameters
    ----------
    roles : Roles
    layout : Layout
    ops : module
        The backend.
    params, grads : ndarray, shape (layout.size,)
        Parameters are received to ``params``; gradients are sent from ``grads``.
    compression : {"none", "fp16", "bf16", "int8"}
        Of the gradients.
    count : callable
        Called with the bytes of each message sent.

    Attributes
    ----------
    pushed : int
        Batches whose gradient this worker has sent in this fit.
    is_open : bool
        Whether the servers are serving.
    """

    def __init__(self, roles, layout, ops, params, grads, compression, count):
        self._roles, self._params, self._grads = roles, params, grads
        self._count, self._ops = count, ops
        self._slices = mail.slices(layout, roles.n_servers)
        self._replies = np.zeros((roles.n_servers, len(Reply._fields)))
        self.pushed, self.is_open = 0, False
        self._wire = mail.wire(compression, ops)
        if self._wire is not None:
            self._residual = empty_block(layout)
            sizes = [own.stop - own.start for own in self._slices]
            self._codes = [np.empty(self._wire.bytes(n), np.uint8) for n in sizes]

    @property
    def versions(self):
        """Updates in each server's slice of the parameters, shape (servers,)."""
        return self._replies[:, Reply._fields.index("version")].copy()

    @property
    def stops_at(self):
        """The batch after which all workers stop; infinite without a request."""
        return float(self._replies[0, Reply._fields.index("stops_at")])

    @property
    def is_asked_to_stop(self):
        """Whether a server has asked for a stop, of which the first may not know."""
        asked = self._replies[:, Reply._fields.index("stops_at")]
        return bool(((asked > 0) & (asked < math.inf)).any())

    @contextmanager
    def fitting(self):
        """Train in the body while the servers serve; they raise what all workers raise.

        They start from worker 0's parameters. Collective over workers and servers.
        """
        with self._roles.told():
            self.pushed, self._replies[:] = 0, 0
            self.is_open = True
            self.load()
            try:
                yield
            except Exception as error:
                if self._roles.raised_by_all(error):
                    self._exchange(Request(mail.LEAVE))
                raise
            except SystemExit as error:
                # A server on another node does not see that this program ends, and may
                # wait for its requests for ever.
                leave(self._roles.everyone, error)
            finally:
                self.is_open = False
            self._exchange(Request(mail.LEAVE))

    def holdings(self, layout):
        """Return the error feedback of the gradients' compression."""
        if self._wire is None:
            return []
        comm, how = self._roles.comm, {"mixing": "sum", "default": 0.0}
        of_rank = (comm.rank, comm.size)
        return [
            held("residual", layout, self._residual, self._ops, of_rank=of_rank, **how)
        ]

    def keep(self):
        """Let the servers copy their state."""
        self._exchange(Request(mail.KEEP))

    def go_back(self):
        """Let the servers restore their copy."""
        self._exchange(Request(mail.BACK))

    def load(self):
        """Send worker 0's parameters to the servers."""
        parts = None
        if self.is_first:
            parts = [self._params[own] for own in self._slices]
        self._exchange(Request(mail.LOAD), parts)

    @property
    def is_first(self):
        """Whether this is worker 0."""
        return self._roles.comm.rank == 0

    def push(self, ahead=0, error=None, **numbers):
        """Send the gradient of the next batch, and receive parameters.

        Parameters
        ----------
        ahead : int
            Maximum number of updates that the received parameters may lack.
        error : Exception, optional
            The reason why this worker has no gradient.
        numbers
            Fields of `mail.Request`.

        Raises
        ------
        DivergenceError, RemoteRankError
            On every worker: the error that the servers found, or that of a worker.
        """
        step = self.pushed + 1
        kind = mail.PUSH if error is None else mail.FAIL
        # A worker that failed waits for the other workers to reach the same step.
        want = step - (ahead if error is None else 0)
        parts = self._parts_of_gradient() if error is None else None
        self._exchange(Request(kind, step, want, **numbers), parts, fetch=True)
        self._heed(error)
        self.pushed = step

    def settle(self):
        """Fetch parameters with the updates of all batches, if any are missing."""
        if (self.versions < self.pushed).any():
            self._exchange(Request(mail.FETCH, want=self.pushed), fetch=True)
            self._heed()

    def _parts_of_gradient(self):
        """Return the message to each server."""
        if self._wire is None:
            return [self._grads[own] for own in self._slices]
        for own, codes in zip(self._slices, self._codes):
            self._wire.encode(self._grads[own], codes, self._residual[own])
        return self._codes

    def _exchange(self, request, parts=None, *, fetch=False, servers=None):
        """Send ``request`` and the server's one of ``parts`` to all or some servers.

        With ``fetch``, receive their replies and parameters. All messages are in flight
        at once, so that no server has to wait for another one.
        """
        header, under_way = mail.encoded(request), []
        if servers is None:
            servers = range(len(self._slices))
        comm = self._roles.everyone
        for server in servers if fetch else ():
            rank = self._roles.n_workers + server
            under_way.append(comm.Irecv(self._replies[server], rank, mail.REPLY))
            for piece in mail.pieces(self._params[self._slices[server]]):
                under_way.append(comm.Irecv(piece, rank, mail.PARAMETERS))
        for server in servers:
            rank = self._roles.n_workers + server
            under_way.append(comm.Isend(header, rank, mail.REQUEST))
            if parts is not None:
                for piece in mail.pieces(parts[server]):
                    under_way.append(comm.Isend(piece, rank, mail.GRADIENT))
                self._count(parts[server].nbytes)
            self._count(header.nbytes)
        wait_all(comm, under_way)

    def _heed(self, error=None):
        """Raise the error that the servers found, if any, on all workers."""
        verdicts = self._replies[:, 0]
        if not verdicts.any():
            return
        # A server that replied before it knew of the error will know of it later, and
        # then has parameters of the same version.
        unaware = np.flatnonzero(verdicts == mail.GOOD)
        aware = np.flatnonzero(verdicts != mail.GOOD)
        reason = self._reasons(aware)
        if unaware.size:
            last = Request(mail.FETCH, want=math.inf)
            self._exchange(last, fetch=True, servers=unaware)
            self._reasons(unaware)
        try:
            if verdicts[0] == mail.FAILED:
                raise_together(self._roles.comm, error)
            raise DivergenceError(reason)
        except Exception as found:
            found.undone = self.pushed - int(self.versions[0])
            raise

    def _reasons(self, servers):
        text = b""
        for server in servers:
            reply = Reply(*self._replies[server].tolist())
            text = bytearray(int(reply.n_reason))
            rank = self._roles.n_workers + int(server)
            self._roles.everyone.Recv(text, rank, mail.REASON)
        return text.decode()
