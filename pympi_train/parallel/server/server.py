"""Parameter servers: they hold the parameters, and update them by gradients."""

import math
from dataclasses import dataclass, field

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm import collectives
from pympi_train.comm.watch.guard import note_wait, unrecorded, wait_all
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.flat.parts import Part
from pympi_train.parallel.base import Strategy
from pympi_train.parallel.server import mail
from pympi_train.parallel.server.mail import Reply, Request
from pympi_train.parallel.server.worker import chosen
from pympi_train.parallel.stateful import optimizer_holdings
from pympi_train.parallel.whole_gradient import require_usable_square


@dataclass
class _Batch:
    """A global batch of which some gradients have arrived."""

    total: np.ndarray
    requests: dict = field(default_factory=dict)  # by worker
    is_empty: bool = True


class Server(Strategy):
    """Holds a slice of the parameters and of the optimizer state.

    Sums the workers' gradients of each global batch, and updates when all have arrived;
    `parallel.server.worker.Worker` describes the algorithm and its cost. Requests of
    synchronous workers are received in a fixed order, so that sums do not depend on the
    order of arrival.

    Parameters
    ----------
    roles : Roles
        Freed by the Trainer.
    layout, optimizer, ops
        As for `Strategy`; the optimizer state of the slice is allocated here.
    staleness, compression
        As for the workers.

    Attributes
    ----------
    params : ndarray, shape (part.size,)
        This server's slice of the parameters.
    """

    serves = True

    def __init__(self, roles, layout, optimizer, ops, staleness=0, compression="none"):
        super().__init__(roles.comm, layout, optimizer, ops)
        self.chosen = chosen(roles, staleness)
        self._roles, self._in_turn = roles, staleness == 0
        self._slices = mail.slices(layout, roles.n_servers)
        own = self._slices[roles.comm.rank]
        self._part = Part(layout, [(own.start, own.stop)])
        self.params = empty_block(self._part)
        optimizer.allocate(self._part, ops)
        self._wire = mail.wire(compression, ops)
        if self._wire is None:
            self._scratch = empty_block(self._part)
        else:
            self._scratch = np.empty(self._wire.bytes(self._part.size), np.uint8)
        self._spare = []  # unused blocks for sums
        self._start()

    def holdings(self):
        """Return this server's slice of the optimizer state."""
        return optimizer_holdings(self._optimizer, self._part, self.ops)

    def init(self, model, seed):
        """Do nothing: worker 0 sends the parameters when training begins."""

    def whole(self):
        """Return all parameters as one flat block. Collective over the servers."""
        block = empty_block(self.layout)
        for rank, own in enumerate(self._slices):
            if rank == self.comm.rank:
                block[own] = self.params
            for piece in mail.pieces(block[own]):
                self.comm.Bcast(piece, root=rank)
        return block

    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Raise TypeError: a server has no rows."""
        raise TypeError("a server takes no steps: it serves while workers fit")

    def serve(self, asks=bool):
        """Serve until all workers have left; return the number of updates.

        Parameters
        ----------
        asks : callable
            Returns whether this rank requests to stop.

        Raises
        ------
        Exception
            The error that all workers raised: of the same class if it is a UserError,
            else RemoteRankError.

        Notes
        -----
        Collective over workers and servers.
        """
        self._start()
        self.laps.start()
        self._asks = asks
        # NaN and infinity are reported to the workers, not warned of.
        with computing():
            while self._present:
                version = self._version
                self._take(*self._next())
                self.laps.lap("communication")
                self._update_where_complete()
                self.laps.lap("update")
                self._answer()
                if self._recorder is not None and self._version > version:
                    self._recorder.end_step(self.count + self._version)
        self._finish_sending()
        self._roles.raise_everywhere(None)
        return self._version

    def _start(self):
        self._version, self._verdict, self._reason = 0, mail.GOOD, b""
        self._open, self._wants, self._under_way = {}, {}, []
        self._present, self._turn = list(range(self._roles.n_workers)), 0
        self._newest, self._stops_at = 0, math.inf
        self._going_on = set()  # workers whose next request is due

    def _next(self):
        """Receive the next request; return the worker and the Request."""
        from mpi4py import MPI

        header, status = mail.encoded(Request(0)), MPI.Status()
        source = MPI.ANY_SOURCE
        if self._in_turn:
            source = self._present[self._turn % len(self._present)]
        everyone, what = self._roles.everyone, (header, source, mail.REQUEST, status)
        if self._is_due(source):
            # The watchdog's timeout holds for a wait, unlike for a Recv.
            receive = unrecorded(everyone, "Recv")
            note_wait(everyone, lambda: receive(*what))
        else:
            everyone.Recv(*what)
        return status.source, Request(*header.tolist())

    def _is_due(self, source):
        """Return whether a request from ``source`` follows a step of its workers."""
        if self._in_turn:
            return source in self._going_on
        return len(self._going_on) == len(self._present)

    def _take(self, worker, request):
        self._turn += 1
        self._going_on.discard(worker)
        if request.goes_on:
            self._going_on.add(worker)
        if request.kind == mail.LEAVE:
            self._present.remove(worker)
            self._turn = 0  # the other workers leave next
        elif request.kind == mail.LOAD:
            if worker == 0:
                self._receive(self.params, worker)
        elif request.kind == mail.KEEP:
            if worker == 0:  # before its next gradient, so before an update
                self.keep()
        elif request.kind == mail.BACK:
            if worker == 0:
                self.go_back()
        else:
            self._wants[worker] = request.want
            self._newest = max(self._newest, int(request.step))
            if (request.stop or self._asks()) and self._stops_at == math.inf:
                # The worker of the newest batch may already have its reply. It learns
                # of the stop in the reply to its next batch, all others by then.
                self._stops_at = self._newest + 1
            if request.kind != mail.FETCH:
                self._add(worker, request)

    def _add(self, worker, request):
        """Add a gradient to those of its batch."""
        step = int(request.step)
        if step not in self._open:
            total = self._spare.pop() if self._spare else empty_block(self._part)
            self._open[step] = _Batch(total)
        batch = self._open[step]
        batch.requests[worker] = request
        if request.kind == mail.FAIL:
            return
        if batch.is_empty and self._wire is None:
            self._receive(batch.total, worker)
        else:
            self._receive(self._scratch, worker)
            self._add_to(batch)
        batch.is_empty = False

    def _add_to(self, batch):
        """Add the gradient just received to the sum."""
        if self._wire is None:
            batch.total += self._scratch
        elif batch.is_empty:
            self._wire.decode(self._scratch, batch.total)
        else:
            self._wire.decode_add(self._scratch, batch.total)

    def _receive(self, block, worker):
        for piece in mail.pieces(block):
            self._roles.everyone.Recv(piece, worker, mail.GRADIENT)

    def _update_where_complete(self):
        """Do the updates for which all gradients have arrived.

        Collective over the servers: each of them updates for the same batches.
        """
        while self._verdict == mail.GOOD:
            batch = self._open.get(self._version + 1)
            if batch is None or len(batch.requests) < self._roles.n_workers:
                return
            requests = [batch.requests[w] for w in sorted(batch.requests)]
            if any(request.kind == mail.FAIL for request in requests):
                self._verdict = mail.FAILED
                return
            try:
                self._update(requests, batch.total)
            except DivergenceError as error:
                self._verdict, self._reason = mail.DIVERGED, str(error).encode()
                return
            self._version += 1
            self._spare.append(self._open.pop(self._version).total)

    def _update(self, requests, total):
        weight = sum(request.weight for request in requests)
        loss = sum(request.loss for request in requests)
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss became {loss}")
        if weight == 0:  # no sample of the batch counts
            return
        first, norm = requests[0], None
        scale, clip_norm = 1.0 / weight, first.clip_norm or None
        if clip_norm is None:
            square = self._over_servers(self.ops.square(total))
            require_usable_square(square, first.lr * scale, total.dtype)
        else:
            norm = self._optimizer.gradient_norm(
                self.params, total, grad_scale=scale, l2=first.l2
            )
            norm = math.sqrt(self._over_servers(norm * norm))
            if not math.isfinite(norm):
                raise DivergenceError("the gradient became NaN or infinite")
        self._finish_sending()
        self._optimizer.update(
            self.params,
            total,
            lr=first.lr,
            grad_scale=scale,
            l2=first.l2,
            clip_norm=clip_norm,
            norm=norm,
        )

    def _over_servers(self, square):
        return float(collectives.reduced(self.comm, [square])[0])

    def _answer(self):
        """Reply to the workers whose version is reached; after an error, to all."""
        done = self._verdict != mail.GOOD
        for worker, want in list(self._wants.items()):
            if done or want <= self._version:
                del self._wants[worker]
                self._send(worker)

    def _send(self, worker):
        comm, send = self._roles.everyone, self._under_way.append
        reply = Reply(self._verdict, self._version, len(self._reason), self._stops_at)
        header = mail.encoded(reply)
        send((header, comm.Isend(header, worker, mail.REPLY)))
        for piece in mail.pieces(self.params):
            send((piece, comm.Isend(piece, worker, mail.PARAMETERS)))
        if self._verdict != mail.GOOD:
            send((self._reason, comm.Isend(self._reason, worker, mail.REASON)))
        self.sent_bytes += header.nbytes + self.params.nbytes + len(self._reason)

    def _finish_sending(self):
        """Wait until no message reads the parameters; all receives are posted."""
        wait_all(self._roles.everyone, [request for _, request in self._under_way])
        self._under_way = []
