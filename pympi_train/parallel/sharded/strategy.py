"""Optimizer state, gradients and parameters sharded over the ranks."""

import math

from pympi_train.comm import collectives
from pympi_train.comm.checks import raise_together
from pympi_train.comm.transports.host import HostTransport
from pympi_train.comm.watch import journal as j
from pympi_train.errors import DivergenceError
from pympi_train.flat.parts import Part
from pympi_train.flat.state import held
from pympi_train.parallel.base import is_of_mpi, leave
from pympi_train.parallel.sharded.grads import SpreadGrads, WholeGrads
from pympi_train.parallel.sharded.layerwise import LayerExchange
from pympi_train.parallel.sharded.params import SpreadParams, WholeParams
from pympi_train.parallel.sharded.partition import Partition
from pympi_train.parallel.sharded.takes import Takes
from pympi_train.parallel.stateful import optimizer_holdings
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import require_usable_square

GONE = (
    "the parameters were spread over the ranks (strategy sharded, stage 3), and their "
    "communicator is freed: call weights() or params before the Trainer is freed"
)


class Sharded(Synchronous):
    r"""Each rank updates a shard of the parameters, with the state of that shard.

    Each layer is cut into one slice per rank; a rank's shard is its slices of all
    layers (`Partition`). Gradients are summed to the owners of the slices, which update
    the parameters.

    - Stage 1 shards the optimizer state.
    - Stage 2 also shards the gradients: a layer's gradients are summed to their owners
      when backward has left the layer.
    - Stage 3 also shards the parameters: a layer's parameters are gathered when the
      model takes them, and dropped when it takes the next layer.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`; the shard's optimizer state is allocated here.
    spans : sequence of slice
        The model's ``layer_spans``; without them, the model is one layer.
    stage : {1, 2, 3}
    transport : HostTransport or another, optional
        The transport of the slices; HostTransport by default.

    Notes
    -----
    Collective. With :math:`n` parameters, :math:`g` of them in the largest layer,
    :math:`L` layers, :math:`P` ranks, :math:`k` blocks of optimizer state (Adam: 2)
    and :math:`m` micro-batches, a rank holds, and sends in a step, in elements [1]_:

    ===== ==================================== ========================= ==============
    stage holds                                sends                     collectives
    ===== ==================================== ========================= ==============
    1     :math:`2n + kn/P + g/P`              :math:`2n(P-1)/P`         :math:`2L`
    2     :math:`n + (1+k)n/P + g + g/P`       :math:`(m+1)n(P-1)/P`     :math:`(m+1)L`
    3     :math:`(2+k)n/P + 2g + g/P`          :math:`3mn(P-1)/P`        :math:`3mL`
    ===== ==================================== ========================= ==============

    Stage 1 with micro-batches holds :math:`n` more, as other strategies do. The paper
    gives :math:`2n` and :math:`3n` for what is sent: the limit for many ranks. Stage 3
    sends less: the last layer is still gathered when backward begins, and so is the
    first layer when the next micro-batch begins. ``sent_bytes`` counts the actual
    exchanges, including those of evaluation. An MPI library has buffers in addition.
    There are further sums of 8 bytes in each step: one for the norm of the gradient, or
    to check that it is usable; one for the penalty; and from stage 2 on, one for the
    number of micro-batches.

    On one rank, all stages are the same and nothing is exchanged.

    References
    ----------
    .. [1] S. Rajbhandari, J. Rasley, O. Ruwase and Y. He, "ZeRO: Memory Optimizations
       Toward Training Trillion Parameter Models", SC20, sections 5 and 7.
       arXiv:1910.02054.
    """

    def __init__(
        self, comm, layout, optimizer, ops, *, spans=(), stage=1, transport=None
    ):
        super().__init__(comm, layout, optimizer, ops)
        self.chosen = {"strategy": "sharded", "stage": stage}
        alone = comm.size == 1
        partition = Partition(layout, spans, comm.size, comm.rank)
        self._transport = transport or HostTransport(comm)
        if ops.ON_DEVICE:
            self.chosen["transport"] = self._transport.name
        exchange = LayerExchange(comm, self._transport, partition, self.count_bytes)
        made_of = (layout, partition, exchange, self.laps, ops)
        spread_params, spread_grads = stage == 3 and not alone, stage > 1 and not alone
        self._params = (SpreadParams if spread_params else WholeParams)(*made_of)
        self._grads = (SpreadGrads if spread_grads else WholeGrads)(*made_of)
        self._part = partition.part
        optimizer.allocate(self._part, ops)
        filled = [
            (params, grads)
            for params, grads in zip(self._params.pieces, self._grads.pieces)
            if params.size
        ]
        twins = optimizer.split(partition.part)
        self._pieces = [(twin, *blocks) for twin, blocks in zip(twins, filled)]
        self._runs = [
            Part(layout, [(piece.start, piece.stop)]).runs()
            for piece in partition.part.pieces
        ]
        self._is_spread, self._freed = spread_params, False
        self._follow_takes()

    def init(self, model, seed):
        """Write the model's starting point; a rank keeps only what it holds."""
        self._params.init(model, seed)

    @property
    def param_views(self):
        """Tensors in model order. At stage 3, this and taking them are collective."""
        return self._params.views

    def holdings(self):
        """Return the parameters (stage 3: a shard) and the shard's optimizer state."""
        return [
            held("params", self._params.space, self._params.own, self.ops),
            *optimizer_holdings(self._optimizer, self._part, self.ops),
        ]

    def restored(self):
        """Invalidate a gathered layer: parameters were written on every rank."""
        self._params.restored()

    def whole(self):
        """Return all parameters as one flat block; at stage 3 a new one. Collective.

        Raises
        ------
        RuntimeError
            At stage 3 after ``free``.
        """
        if self._is_spread and self._freed:
            raise RuntimeError(GONE)
        return self._params.whole()

    def replicas(self):
        """Return the parameters, or None at stage 3: they are not replicated."""
        return None if self._is_spread else self._params.whole()

    def _follow_takes(self):
        """Record which tensors the model takes where ranks exchange them."""
        self._takes, self._sequences = Takes(), {}
        if self._params.exchanges:
            self._sequences["params"] = self._params.views
        if self._grads.exchanges:
            self._sequences["grads"] = self._grads.views
        for sequence in self._sequences.values():
            sequence.takes = self._takes

    def expect(self, takes):
        """Set the order in which the model takes its tensors."""
        self._takes.expect(takes, tuple(self._sequences))

    @property
    def _exchanges_early(self):
        return bool(self._sequences)

    @property
    def synchronises_in_forward(self):
        """Whether ranks exchange when the model takes a layer's parameters."""
        return self._params.exchanges

    def _agree_batches(self, n_batches):
        """Return the maximum number over ranks, if ranks exchange in each micro-batch.

        Collective then.
        """
        if not self._exchanges_early:
            return n_batches
        (most,) = collectives.reduced(self.comm, [n_batches], op="MAX")
        return int(most)

    def _compute(self, feed, rows, params, n_batches):
        """Run all micro-batches, except the last backward; see `Synchronous`.

        A rank that fails takes part in all exchanges that follow.
        """
        if not self._exchanges_early:
            return super()._compute(feed, rows, params, n_batches)
        if self._error is not None:
            self._keep(self._error)
        weight, losses, step = 0.0, [], self.count + 1
        batches = feed.batches(rows, n_batches)
        for index in range(n_batches):
            self._mark(j.INPUT, step)
            self._takes.begin("forward")
            try:
                if self._error is None:
                    batch = next(batches)
                    self.laps.lap("input")
                    self._mark(j.FORWARD, step)
                    weight += feed.weight_of(batch)
                    losses.append(self._model.loss(params, batch))
            except Exception as caught:
                self._keep(caught)
            self._takes.finish(self._sequences)
            if index < n_batches - 1:
                self._run_backward(params, index, n_batches)
                self.laps.lap("compute")
        return weight, losses

    def _run_backward(self, params, index, n_batches):
        self._mark(j.BACKWARD, self.count + 1)
        self._takes.begin("backward")
        self._grads.begin(index)
        try:
            if self._error is None:
                self._grads.backward(self._model, params, index)
        except Exception as caught:
            self._keep(caught)
        self._grads.views.poisoned = self._error is not None
        self._takes.finish(self._sequences)
        self._grads.close()

    def _keep(self, error):
        """Store an error for the control exchange; abort if this rank must stop."""
        self._error = error
        self._go_on_or_leave(error)

    def _go_on_or_leave(self, error):
        if not self._takes.is_known or is_of_mpi(error):
            leave(self.comm, error)

    def backward(self, model, params, index, last):
        """Write the micro-batch's gradient sum, or add it to the previous ones.

        Collective from stage 2 on.
        """
        if self._grads.exchanges:
            self._grads.begin(index)
            self._grads.backward(model, params, index)
        else:
            is_alone = index == 0 and last
            noise = None if is_alone else self.noise
            self._grads.backward(model, params, index, noise)
        if self._grads.exchanges:
            self._grads.close()

    def pass_over(self, feed, rows, do, n_forwards):
        """Call ``do(batch)`` for all batches of ``rows``; see `Strategy`."""
        if not self.synchronises_in_forward:
            super().pass_over(feed, rows, do, n_forwards)
            return
        error, n_batches = None, self._agree_batches(feed.count(rows))
        batches = feed.batches(rows, n_batches)
        for _ in range(n_batches):
            self._takes.begin("forward", n_forwards)
            try:
                if error is None:
                    do(next(batches))
            except Exception as caught:
                error = caught
                self._go_on_or_leave(error)
            self._takes.finish(self._sequences)
        raise_together(self.comm, error)

    def _note_own(self):
        self.noise.see_share(self.ops, self._grads.block)

    def _own_sums(self):
        return [grads for *_, grads in self._pieces]

    def _forget_gradient(self):
        self._grads.forget()
        self._params.restored()  # invalidates a gathered layer

    def combine(self):
        """Sum the gradients of this rank's shard over the ranks. Collective."""
        self._grads.combine()

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update this rank's shard, and give it to the other ranks. Collective."""
        scale, optimizer = 1.0 / weight, self._optimizer
        norm = self._usable_norm(lr, scale, l2, clip_norm)
        for twin, params, grads in self._pieces:
            twin.step = optimizer.step
            twin.update(
                params,
                grads,
                lr=lr,
                grad_scale=scale,
                l2=l2,
                clip_norm=clip_norm,
                norm=norm,
            )
        optimizer.step += 1
        self.laps.lap("update")
        self._params.spread()
        self.laps.lap("communication")

    def _usable_norm(self, lr, scale, l2, clip_norm):
        """Return the norm if ``clip_norm`` is given; raise if the step is unusable.

        Raises on every rank, before any parameter changes. Collective.
        """
        if clip_norm is None:
            square = sum(self.ops.square(grads) for *_, grads in self._pieces)
            require_usable_square(self._total(square), lr * scale, self.layout.dtype)
            return None
        square = 0.0
        for twin, params, grads in self._pieces:
            norm = twin.gradient_norm(params, grads, grad_scale=scale, l2=l2)
            square += norm * norm
        norm = math.sqrt(self._total(square))
        if not math.isfinite(norm):
            raise DivergenceError("the gradient became NaN or infinite")
        return norm

    def _total(self, value):
        """Return the sum of ``value`` over the ranks. Collective."""
        self.laps.lap("update")
        (total,) = collectives.reduced(self.comm, [value])
        self.laps.lap("communication")
        return float(total)

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64. Collective."""
        if l2 == 0:
            return 0.0
        square = 0.0
        for (_, params, _), runs in zip(self._pieces, self._runs):
            square += float(self.ops.weights_square(params, runs))
        return 0.5 * l2 * self._total(square)

    def free(self):
        """Free the transport; each rank keeps the parameters that it holds."""
        self._freed = True
        self._transport.free()
