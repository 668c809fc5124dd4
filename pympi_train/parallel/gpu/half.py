"""Every rank computes in float16 or bfloat16, with float32 master weights."""

import math

from pympi_train.backends.cuda.arrays import narrow
from pympi_train.comm.sums.halves import HalfSum
from pympi_train.parallel.base import init_block
from pympi_train.parallel.gpu.allreduce import DeviceAllreduce


class HalfAllreduce(DeviceAllreduce):
    """`DeviceAllreduce` with 2-byte gradients and float32 master weights.

    The model computes with a rounded copy of the parameters, which the update writes
    together with them [1]_. Gradients are summed in float32 over micro-batches, then
    over ranks, and rounded once after each of the two sums.

    Parameters
    ----------
    comm, layout, optimizer, ops, transport
        As for `DeviceAllreduce`.
    half : dtype
        float16, or ``cuda.BFLOAT16``.
    scale : LossScale or None
        The factor on the loss, and so on the gradients; for float16.

    Notes
    -----
    A step sends half the bytes of `DeviceAllreduce`. A GPU holds ``2 n`` elements of 2
    bytes, ``n`` in float32 and the optimizer state; with micro-batches ``n`` more in
    float32.

    References
    ----------
    .. [1] P. Micikevicius et al., "Mixed Precision Training", ICLR 2018.
       arXiv:1710.03740.
    """

    def __init__(self, comm, layout, optimizer, ops, *, transport, half, scale=None):
        self._half, self._scale, self._used = half, scale, 1.0
        super().__init__(
            comm, layout, optimizer, ops, transport=transport, overlap="off"
        )
        self._copy, self._sum = ops.zeros(layout.size, half), None
        self.param_views = layout.views(self._copy)
        self._half_sum = HalfSum(comm, transport, ops, layout.size)

    def _make_blocks(self):
        params = self.ops.empty_block(self.layout)
        return params, self.ops.zeros(self.layout.size, self._half)

    @property
    def _loss_scale(self):
        """The factor on the loss of the next step."""
        return 1.0 if self._scale is None else self._scale.value

    def init(self, model, seed):
        """Write the model's starting point into the parameters. Collective."""
        init_block(model, seed, self.layout, self.params, self.ops)
        self.restored()

    def restored(self):
        """Round the parameters just written to the copy."""
        narrow(self.params, self._copy)

    def numbers(self):
        """Return the rest of the state, including the loss scale."""
        scale = {} if self._scale is None else {"loss_scale": self._scale.numbers()}
        return {**super().numbers(), **scale}

    def take_numbers(self, numbers):
        """Restore the values that `numbers` returned."""
        super().take_numbers(numbers)
        if self._scale is not None and "loss_scale" in numbers:
            self._scale.take_numbers(numbers["loss_scale"])

    def backward(self, model, params, index, last):
        """Queue the micro-batch's gradient sum, to be written or added."""
        if index == 0:
            self._used = self._loss_scale
        model.gradient(params, self.grad_views)
        if index == 0 and last:
            return
        if self._sum is None:
            self._sum = self.ops.empty_block(self.layout)
        if index == 0:
            self.ops.fill(self._sum, 0)
        if self.noise is not None:
            self.noise.see_batch(self.ops, self.grads)
        self.ops.add(self.grads, self._sum)
        if last:
            narrow(self._sum, self.grads)

    def combine(self):
        """Sum the gradients over the ranks. Collective."""
        self._half_sum.sum(self.grads)
        self.sent_bytes = self._half_sum.sent_bytes

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Queue the update of the parameters and of their copy.

        ``weight`` includes the factor of the loss scale, as the gradients do.
        """
        self._judge(lr, 1.0 / weight, l2, clip_norm)
        self._optimizer.queue_update(
            self.params,
            self.grads,
            lr=lr,
            grad_scale=1.0 / weight,
            l2=l2,
            factor=self._verdict.factor,
            copy=self._copy,
        )

    def verdict(self):
        """Wait for the verdict on the last update, which is equal on every rank.

        An overflow, which all ranks find in the summed gradient, lowers the loss scale.
        It ends the training only if the scale is at its minimum.
        """
        taken = super().verdict()
        if taken and self._scale is not None:
            self._scale.fitted()
        return taken

    def _refused(self, norm):
        # If the norm is finite, the step is too large at any scale.
        overflowed = self._scale is not None and not math.isfinite(norm)
        if not overflowed or not self._scale.overflowed(self._judged_with):
            super()._refused(norm)

    def _judge(self, *args):
        self._judged_with = self._used
        super()._judge(*args)
