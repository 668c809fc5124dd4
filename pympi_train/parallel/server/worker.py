"""Workers of parameter servers: they send gradients, and fetch parameters."""

from pympi_train.comm.watch.guard import marker
from pympi_train.parallel.free import Free
from pympi_train.parallel.server.link import Link
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import WholeGradient


class AtServers(WholeGradient):
    """Base of both kinds of workers: they hold parameters, but no optimizer state."""

    _link: Link

    @property
    def versions(self):
        """Updates in each server's slice of ``params``, shape (servers,)."""
        return self._link.versions

    def fitting(self):
        """Train in the body while the servers serve. Collective with the servers."""
        return self._link.fitting()

    def holdings(self):
        """Return parameters and the error feedback of compression."""
        return [*super().holdings(), *self._link.holdings(self.layout)]

    def keep(self):
        """Copy the state, and let the servers copy the optimizer state."""
        super().keep()
        self._link.keep()

    def go_back(self):
        """Restore the copies here and on the servers. Collective with the servers."""
        self._link.go_back()
        super().go_back()

    def restored(self):
        """Send worker 0's parameters to the servers, if they are serving."""
        if self._link.is_open:
            self._link.load()


class Worker(AtServers, Synchronous):
    r"""Computes gradients, sends them to the servers, and fetches parameters.

    Each server has a slice of the parameters and of the optimizer state [1]_. It
    updates when the gradients of *all* workers for a global batch have arrived, so
    version :math:`v` of the parameters results from :math:`v` global batches.

    The steps are those of one process. `StaleWorker` does not wait for all workers.

    Parameters
    ----------
    roles : Roles
        Freed by the Trainer.
    layout, ops
        As for `Strategy`.
    compression : {"none", "fp16", "bf16", "int8"}
        Of gradients, with error feedback on the worker. Parameters are uncompressed.

    Notes
    -----
    With :math:`W` workers, :math:`S` servers and :math:`n` parameters, a worker sends
    and receives :math:`n` elements in a step, in :math:`S` messages each way, each
    after a header of 80 or 32 bytes. With compression, it sends
    `comm.sums.wires.Wire.bytes` instead of :math:`n` elements. A server sends and
    receives :math:`W n / S` elements, so with few servers their network is the
    bottleneck; Allreduce takes :math:`2 n (P - 1) / P` per rank. Sending does not
    overlap with computing: a worker continues when its gradient is sent.

    A worker holds :math:`2 n` elements, with compression :math:`n` more and the codes,
    and no optimizer state. A server holds :math:`(2 + s + 1) n / S` elements, with
    staleness :math:`s`, and its slice of the optimizer state.

    References
    ----------
    .. [1] M. Li et al., "Scaling Distributed Machine Learning with the Parameter
       Server", OSDI 2014.
    """

    def __init__(self, roles, layout, ops, compression="none"):
        super().__init__(roles.comm, layout, None, ops)
        self._mark = self._plain_mark = marker(roles.everyone)  # servers look too
        self.chosen = chosen(roles, 0)
        made_of = roles, layout, ops, self.params, self.grads, compression
        self._link = Link(*made_of, self.count_bytes)

    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Update the parameters; stop also if a server asks for it. See `Strategy`."""
        stop = stop or self._link.is_asked_to_stop
        return super().step(feed, rows, lr, error=error, stop=stop)

    def combine(self):
        """Do nothing: the servers sum the gradients."""

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Send the gradient, and receive the updated parameters."""
        # The servers sum the weights, but each worker has the whole batch's weight.
        weight = weight if self._link.is_first else 0.0
        self._link.push(
            lr=lr,
            weight=weight,
            l2=l2,
            clip_norm=clip_norm or 0.0,
            goes_on=self.goes_on,
        )
        self.laps.lap("communication")

    def settle(self):
        """Fetch the newest parameters, if this worker lacks an update."""
        self._link.settle()
        return False


class StaleWorker(AtServers, Free):
    r"""As `Worker`, but a worker does not wait for all other workers in each step.

    It continues with batch :math:`b` as soon as each slice has version
    :math:`b - 1 - s`, where :math:`s` is the staleness, and uses the newest version. So
    no worker is more than :math:`s` steps ahead of the slowest: the stale synchronous
    parallel model of [1]_. Slices of different servers may have different versions.

    Parameters
    ----------
    roles, layout, ops, compression
        As for `Worker`.
    staleness : int
        :math:`s`, at least 1.

    References
    ----------
    .. [1] Q. Ho et al., "More Effective Distributed ML via a Stale Synchronous
       Parallel Parameter Server", NIPS 2013.
    """

    def __init__(self, roles, layout, ops, staleness, compression="none"):
        super().__init__(roles.comm, layout, None, ops)
        self._mark = self._plain_mark = marker(roles.everyone)  # servers look too
        self.chosen = chosen(roles, staleness)
        self._staleness = staleness
        made_of = roles, layout, ops, self.params, self.grads, compression
        self._link = Link(*made_of, self.count_bytes)

    def advance(self, *, lr, weight, loss, l2, clip_norm, error, stop):
        """Send the gradient of this rank's share; receive parameters for the next.

        Waits only while some worker is more than ``staleness`` steps behind; see
        `Free.advance`. After a request to stop, all workers stop after the same batch.

        Raises
        ------
        DivergenceError
            On every worker, if the loss or gradient of a batch is not finite; the
            parameters are those before that batch.
        RemoteRankError
            On every other worker, if one failed; that worker raises its own error.
        """
        self._link.push(
            self._staleness,
            error,
            lr=lr,
            weight=weight,
            loss=loss,
            l2=l2,
            clip_norm=clip_norm or 0.0,
            stop=float(stop or self._link.is_asked_to_stop),
            goes_on=self.goes_on,
        )
        self.laps.lap("communication")
        return self._link.pushed >= self._link.stops_at

    def _settle(self):
        """Fetch parameters with the updates of all batches."""
        self._link.settle()
        return self._link.pushed >= self._link.stops_at


def chosen(roles, staleness):
    """Return the attribute ``chosen`` of workers and servers."""
    return {
        "strategy": "server",
        "servers": roles.n_servers,
        "staleness": staleness,
    }
