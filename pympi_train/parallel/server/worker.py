"""Servers hold the parameters; workers send them gradients. The worker's side."""

from pympi_train.parallel.free import Free
from pympi_train.parallel.server.link import Link
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import WholeGradient


class AtServers(WholeGradient):
    """What workers of both kinds do: parameters are theirs, optimizer state is not."""

    _link: Link

    @property
    def versions(self):
        """Updates in each server's slice of ``params``, shape (servers,)."""
        return self._link.versions

    def fitting(self):
        """Train in the body: servers serve so long. Collective with the servers."""
        return self._link.fitting()

    def holdings(self):
        """Return parameters and what compression has lost."""
        return [*super().holdings(), *self._link.holdings(self.layout)]

    def keep(self):
        """Keep a copy, and let the servers keep one of the optimizer's state."""
        super().keep()
        self._link.keep()

    def go_back(self):
        """Go back to what was kept, and let the servers. Collective with them."""
        self._link.go_back()
        super().go_back()

    def restored(self):
        """Give the servers worker 0's parameters, unless they ask for them later."""
        if self._link.is_open:
            self._link.load()


class Worker(AtServers, Synchronous):
    r"""Computes gradients, sends them to the servers, and fetches parameters.

    Each server has a slice of the parameters and of the optimizer's state. An update
    is done when the gradients of *all* workers for a global batch are there, so that
    version :math:`v` of the parameters is what :math:`v` global batches left.

    The ranks take the steps of one process. `StaleWorker` does not wait for all.

    Parameters
    ----------
    roles : Roles
        Freed by the Trainer.
    layout, ops
        As for `Strategy`.
    compression : {"none", "fp16", "bf16", "int8"}
        Of gradients, with error feedback on the worker; parameters come as they are.

    Notes
    -----
    For :math:`W` workers, :math:`S` servers and :math:`n` parameters, a worker sends
    :math:`n` elements a step and receives :math:`n`, in :math:`S` messages each way,
    with a message of 72 or 32 bytes before each; compressed, it sends what
    `comm.sums.wires.Wire.bytes` says in place of :math:`n` elements. A server sends and
    receives :math:`W n / S` elements: with few servers their network is what takes
    time, where Allreduce needs :math:`2 n (P - 1) / P` a rank. The gradient has left
    before a worker goes on; it is not sent while the next one is computed.
    A worker holds :math:`2 n` elements, with compression :math:`n` more and the codes,
    and no state of the optimizer; a server :math:`(2 + s + 1) n / S`, with staleness
    :math:`s`, and its slice of the state.

    References
    ----------
    .. [1] M. Li et al., "Scaling Distributed Machine Learning with the Parameter
       Server", OSDI 2014.
    """

    def __init__(self, roles, layout, ops, compression="none"):
        super().__init__(roles.comm, layout, None, ops)
        self.chosen = chosen(roles, 0)
        made_of = roles, layout, ops, self.params, self.grads, compression
        self._link = Link(*made_of, self.count_bytes)

    def combine(self):
        """The servers add the gradients up."""

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Send the gradient, and receive the parameters after the update of all."""
        # All workers know the batch's weight; the servers add up what they are told.
        weight = weight if self._link.is_first else 0.0
        self._link.push(lr=lr, weight=weight, l2=l2, clip_norm=clip_norm or 0.0)
        self.laps.lap("communication")

    def settle(self):
        """There is nothing that this worker has not yet fetched."""
        self._link.settle()
        return False


class StaleWorker(AtServers, Free):
    r"""As `Worker`, but a worker does not wait for all others in each step.

    It goes on to batch :math:`b` as soon as each slice has version :math:`b - 1 - s`,
    :math:`s` being the staleness, and takes the newest there is: no worker is more than
    :math:`s` steps ahead of the slowest, which is the stale synchronous parallel of
    [1]_. Slices from different servers may be of different versions.

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
        self.chosen = chosen(roles, staleness)
        self._staleness = staleness
        made_of = roles, layout, ops, self.params, self.grads, compression
        self._link = Link(*made_of, self.count_bytes)

    def advance(self, *, lr, weight, loss, l2, clip_norm, error, stop):
        """Send the gradient of this rank's share; receive parameters for the next.

        Waits only until no rank is more than ``staleness`` steps behind; see
        `Free.advance`. A worker's wish to stop is met by all after the same batch.

        Raises
        ------
        DivergenceError
            On every worker, if loss or gradient of a batch is NaN or infinite; the
            parameters are those before that batch.
        RemoteRankError
            On every worker, if one brought an error; that worker raises its own.
        """
        self._link.push(
            self._staleness,
            error,
            lr=lr,
            weight=weight,
            loss=loss,
            l2=l2,
            clip_norm=clip_norm or 0.0,
            stop=float(stop),
        )
        self.laps.lap("communication")
        return self._link.pushed >= self._link.stops_at

    def _settle(self):
        """Fetch what all workers' batches have left."""
        self._link.settle()
        return self._link.pushed >= self._link.stops_at


def chosen(roles, staleness):
    """Return what workers and servers tell of themselves."""
    return {
        "strategy": "server",
        "servers": roles.n_servers,
        "staleness": staleness,
    }
