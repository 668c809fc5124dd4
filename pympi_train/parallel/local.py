"""Local steps on each rank, with an average over the ranks every few steps."""

import math

import numpy as np

from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.comm.control import Control
from pympi_train.comm.sums.compress import compressed_sum
from pympi_train.comm.transports.host import HostTransport
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.flat.state import held
from pympi_train.parallel.free import Free
from pympi_train.parallel.stateful import optimizer_holdings

UPDATES = Layout([Tensor("count", ())], "float64")
OUTER_LR, OUTER_MOMENTUM = 0.7, 0.9  # of DiLoCo, section 3.1

DIVERGED = (
    "since the last synchronisation, a loss or gradient became NaN or too large"
)


class Local(Free):
    r"""Local steps on each rank's share of the batch, averaged every ``H`` steps.

    Each rank updates its own parameters by the mean gradient of its own share, with its
    own optimizer state. When the ranks synchronise, with :math:`w_r` the sample weight
    of rank :math:`r` since the last synchronisation and :math:`\theta` the parameters
    after it, they compute

    .. math::
        \Delta = \sum_r \frac{w_r}{\sum_s w_s} (\theta - \theta_r), \qquad
        \theta \leftarrow \theta - \Delta,

    the weighted average [1]_; or the outer Nesterov step [2]_

    .. math::
        v \leftarrow 0.9\, v + \Delta, \qquad
        \theta \leftarrow \theta - 0.7\, (\Delta + 0.9\, v).

    With ``H = 1``, plain SGD and the average, this is the step on the whole batch.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`.
    local_steps : int
        ``H``, at least 1. The last synchronisation of an epoch may come earlier.
    outer : {"average", "nesterov"}
    compression : {"none", "fp16", "bf16", "int8", "topk", "powersgd"}
        Of the differences that are sent, with error feedback.
    transport : HostTransport or another, optional
        The transport of the differences; HostTransport by default.

    Notes
    -----
    In a synchronisation, a rank sends at best ``2 n (P - 1) / P`` elements, or what the
    compression's docstring says, and one small control message: ``1 / H`` of that per
    step. A rank holds ``3 n`` elements (``4 n`` with the outer step), the optimizer
    state, and the error feedback of compression.

    Clipping applies to each rank's own gradient. Except for ``H = 1`` as above, the
    result differs from that of one process: with more ranks, each has a smaller share
    of the batch and a noisier gradient.

    An error or a non-finite loss or gradient on one rank is known to the others at the
    next synchronisation. All ranks then return to the parameters of the last one; the
    optimizer state keeps the effect of the steps since.

    References
    ----------
    .. [1] S. U. Stich, "Local SGD Converges Fast and Communicates Little", ICLR
       2019. arXiv:1805.09767.
    .. [2] A. Douillard et al., "DiLoCo: Distributed Low-Communication Training of
       Language Models", 2023. arXiv:2311.08105.
    """

    def __init__(
        self,
        comm,
        layout,
        optimizer,
        ops,
        *,
        local_steps,
        outer,
        compression="none",
        transport=None,
    ):
        super().__init__(comm, layout, optimizer, ops)
        optimizer.allocate(layout, ops)
        self._updates = np.zeros(UPDATES.size, UPDATES.dtype)
        self.chosen = {
            "strategy": "local",
            "local_steps": local_steps,
            "outer": outer,
        }
        self._n_steps = local_steps
        self._transport = transport or HostTransport(comm)
        if ops.ON_DEVICE:
            self.chosen["transport"] = self._transport.name
        self._wire = compressed_sum(compression, comm, layout, ops, self._transport)
        self._start = ops.empty_block(layout)  # parameters when last synchronised
        self._velocity = ops.empty_block(layout) if outer == "nesterov" else None
        self._control = Control(comm)
        self._forget()

    def _forget(self):
        self._done, self._weight, self._loss = 0, 0.0, 0.0
        self._diverged, self._wants_to_stop = None, False

    def init(self, model, seed):
        """Write the model's starting point into the parameters. Collective."""
        super().init(model, seed)
        self.restored()

    def holdings(self):
        """Return this rank's state after a synchronisation; see `Strategy`.

        Each rank has its own optimizer state. A training that resumes on another number
        of ranks starts from their mean.
        """
        rank = {"of_rank": (self.comm.rank, self.comm.size)}
        optimizer = optimizer_holdings(self._optimizer, self.layout, self.ops, **rank)
        found = [
            held("params", self.layout, self.params, self.ops),
            *optimizer,
            *self._wire.holdings(self.layout),
        ]
        # Ranks without rows make fewer updates. Other strategies save one number.
        self._updates[0] = step = self._optimizer.step
        how = {"default": float(step), **rank}
        found.append(held("updates", UPDATES, self._updates, numpy_ops, **how))
        if self._velocity is not None:
            block = self._velocity
            found.append(held("velocity", self.layout, block, self.ops, default=0.0))
        return found

    def finish(self):
        """Raise RuntimeError unless the ranks have just synchronised."""
        if self._done:
            raise RuntimeError(
                "with local steps, take the state after an epoch or a stop: the ranks "
                f"have taken {self._done} local steps since they last synchronised"
            )

    def restored(self):
        """Use the parameters just written as those of the last synchronisation."""
        self.ops.copy(self.params, self._start)
        self._optimizer.step = round(float(self._updates[0]))

    def advance(self, *, lr, weight, loss, l2, clip_norm, error, stop):
        """Take a local step; synchronise every ``H`` steps; see `Free.advance`.

        Notes
        -----
        Collective at every ``H``-th call.
        """
        self._error, self._wants_to_stop = error, self._wants_to_stop or stop
        if error is None and self._diverged is None:
            self._weight, self._loss = self._weight + weight, self._loss + loss
            if weight > 0:
                self._step(lr, weight, loss, l2, clip_norm)
        self._done += 1
        if self._done < self._n_steps:
            return False
        return self._meet(undone=self._done - 1)

    def _settle(self):
        """Synchronise, if there were steps since the last time. Collective."""
        return self._done > 0 and self._meet(undone=self._done)

    def _step(self, lr, weight, loss, l2, clip_norm):
        try:
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss became {loss}")
            self._move(lr, weight, l2, clip_norm)
        except DivergenceError as error:
            self._diverged = error

    def _meet(self, undone):
        """Synchronise the parameters of all ranks. Collective.

        Returns whether some rank requests to stop.
        """
        self.laps.lap("update")
        diverged = float(self._diverged is not None)
        try:
            weight, n_diverged, stop = self._control.exchange(
                self._weight, diverged, float(self._wants_to_stop), self._error
            )
            if n_diverged:
                raise DivergenceError(DIVERGED)
            if weight > 0:
                self._combine(self._weight / weight)
            return stop > 0
        except Exception as error:
            self.ops.copy(self._start, self.params)
            self.ops.fill(self.grads, 0)  # keeps the error feedback
            error.undone = undone
            raise
        finally:
            self._forget()
            self.laps.lap("communication")

    def _combine(self, share):
        difference = self.grads  # free until the next backward
        self.ops.subtract(self._start, self.params, difference)
        self.ops.scale(difference, share)
        self._wire.sum(difference)
        self.sent_bytes = self._wire.sent_bytes
        if self._velocity is None:
            self.ops.subtract(self._start, difference, self._start)
        else:
            self.ops.sgd_update(
                self._start,
                difference,
                self._velocity,
                lr=OUTER_LR,
                grad_scale=1.0,
                l2=0.0,
                momentum=OUTER_MOMENTUM,
                nesterov=True,
            )
        self.ops.copy(self._start, self.params)

    def free(self):
        """Free the transport; the parameters stay. Collective."""
        self._transport.free()
