"""Every rank holds all parameters on its GPU; gradients are summed over GPUs."""

import math

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda.ops import Verdict
from pympi_train.comm.collectives import ring_bytes
from pympi_train.comm.sums.compress import compressed_sum
from pympi_train.errors import DivergenceError
from pympi_train.parallel.overlap import Watched, useful_buckets
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import LARGEST_STEP, WholeGradient


class DeviceAllreduce(WholeGradient, Synchronous):
    """`Allreduce` on GPUs: parameters, gradients and optimizer state on each GPU.

    All work of a step is queued; the host waits only for the loss. The device checks
    whether the summed gradient is usable, and skips the update if not. The host reads
    the result before the next update (``verdict``).

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`, with a GPU's backend.
    transport : NcclTransport or another
        Freed with the strategy.
    spans : sequence of slice
        The model's ``layer_spans``.
    bucket_bytes : int
        With overlap: maximum size of a bucket, which is summed at once.
    overlap : {"off", "on", "auto"}
        Whether gradients of later layers are summed while the device still computes
        those of earlier layers; auto: on.
    compression : {"none", "fp16", "bf16", "int8"}
        Of the messages, with error feedback.

    Notes
    -----
    In a step, a rank sends at best ``2 n (P - 1) / P`` elements, or what the
    compression's docstring says. A GPU holds ``2 n`` elements and the optimizer state.

    Nothing is sent before the control exchange. Meanwhile the device computes the
    gradients and records an event when a bucket is complete; the buckets are summed in
    that order.
    """

    def __init__(
        self,
        comm,
        layout,
        optimizer,
        ops,
        *,
        transport,
        spans=(),
        bucket_bytes=25 * 2**20,
        overlap="auto",
        compression="none",
    ):
        super().__init__(comm, layout, optimizer, ops)
        if optimizer is not None:
            optimizer.allocate(layout, ops)
        self._transport = transport
        self._bucket_starts, self._ready = [], []
        if comm.size > 1 or compression != "none":
            self._prepare_sum(compression, spans, bucket_bytes, overlap)
        self._verdict = Verdict()
        self._step_bytes = ring_bytes(self.grads.nbytes, comm.size)
        self.chosen = {
            "strategy": "allreduce",
            "transport": transport.name,
            "exchange": transport.name if compression == "none" else compression,
            "overlap": "on" if self._bucket_starts else "off",
        }

    def _prepare_sum(self, compression, spans, bucket_bytes, overlap):
        if compression != "none":
            self._wire = compressed_sum(
                compression, self.comm, self.layout, self.ops, self._transport
            )
        elif overlap != "off":
            buckets = useful_buckets(self.layout, spans, self.grads, bucket_bytes)
            self._bucket_starts = [start for start, _ in buckets]

    def backward(self, model, params, index, last):
        """Queue the micro-batch's gradient sum, to be written or added."""
        self._ready = []
        if not (last and self._bucket_starts):
            super().backward(model, params, index, last)
            return
        views, scratch, noise = self.grad_views, None, self.noise
        if index > 0:
            views, scratch = self._second_block()

        def final(start, stop):
            if scratch is not None:
                if noise is not None:
                    noise.see_batch(self.ops, scratch[start:stop])
                self.ops.add(scratch[start:stop], self.grads[start:stop])
            if noise is not None:  # before the event, from which on it is summed
                noise.see_share(self.ops, self.grads[start:stop])
            self._mark_ready(start)

        watched = Watched(views, self.layout, final)
        model.gradient(params, watched)
        watched.close()

    def _note_own(self):
        if not self._bucket_starts:
            super()._note_own()

    def _note_step(self, weight):
        if self.noise is not None:  # `_hear_verdict` commits it
            self._end_noted_step(weight)

    def _mark_ready(self, final):
        """Record an event for the buckets that are complete, from ``final`` on."""
        stop = self._ready[-1][0] if self._ready else self.layout.size
        starts = [s for s in self._bucket_starts if final <= s < stop]
        if starts:
            event = cuda.record()
            for start in starts:
                self._ready.append((start, stop, event))
                stop = start

    def combine(self):
        """Sum the gradients over the ranks. Collective."""
        if self._wire is not None:
            before = self._wire.sent_bytes
            self._wire.sum(self.grads)
            self.sent_bytes += self._wire.sent_bytes - before
            return
        if self.comm.size == 1:
            return
        self._transport.sum(self.grads, self._ready)
        self._ready = []
        self.sent_bytes += self._step_bytes

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Queue the update of the parameters from the summed gradient of a batch."""
        self._judge(lr, 1.0 / weight, l2, clip_norm)
        self._optimizer.queue_update(
            self.params,
            self.grads,
            lr=lr,
            grad_scale=1.0 / weight,
            l2=l2,
            factor=self._verdict.factor,
        )

    def _judge(self, lr, grad_scale, l2, clip_norm):
        largest = LARGEST_STEP["d"]
        if clip_norm is None:
            if lr > 0:  # a schedule may decay to 0
                largest = min(LARGEST_STEP[self.layout.dtype.char] / lr, largest)
            l2 = 0.0
        self._verdict.judge(
            self.grads,
            self.params,
            grad_scale=grad_scale,
            l2=l2,
            runs=self.layout.runs(),
            limit=largest * largest,
            clip_norm=clip_norm,
        )

    def verdict(self):
        """Wait for the verdict on the last update, which is equal on every rank.

        Returns whether there was an update and the device applied it.

        Raises
        ------
        DivergenceError
            If the gradient was NaN or infinite or the step too large; the device has
            skipped the update.
        """
        found = self._verdict.norm_and_use()
        if found is None or found[1]:
            return found is not None
        self._optimizer.step -= 1
        self._refused(found[0])
        return False

    def _refused(self, norm):
        """Raise the error of an update that was skipped, given the gradient's norm."""
        if math.isfinite(norm):
            raise DivergenceError(f"the step became too large for {self.layout.dtype}")
        raise DivergenceError("the gradient became NaN or infinite")

    def _hear_verdict(self):
        """Raise the error of the last update, if any, on every rank."""
        try:
            if not self.verdict() and self.noise is not None:
                self.noise.drop()
        except DivergenceError as error:
            if self.noise is not None:
                self.noise.drop()
            self.count -= 1
            self._forget_gradient()
            raise self._divergence(str(error)) from error
        if self.noise is not None:
            self.noise.commit()

    def settle(self):
        """Wait for the verdict on the last update."""
        self._hear_verdict()
        return False

    def finish(self):
        """Wait for the verdict on the last update."""
        self._hear_verdict()

    def params_at(self, point):
        """Copy ``point`` from host memory to the parameters; return their views."""
        self.ops.from_host(point, self.params)
        return self.param_views

    def free(self):
        """Free the transport; the parameters stay. Collective."""
        self._transport.free()
