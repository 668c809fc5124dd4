"""Base of strategies whose ranks each have all parameters and gradients."""

import math
from functools import cached_property

import numpy as np

from pympi_train.errors import DivergenceError
from pympi_train.flat.parts import even_cuts
from pympi_train.flat.state import held
from pympi_train.parallel.base import Strategy
from pympi_train.parallel.stateful import optimizer_holdings

LARGEST_STEP = {t: math.sqrt(np.finfo(t).max) for t in "fd"}  # by dtype.char


class WholeGradient(Strategy):
    """A strategy whose ranks each have all parameters and gradients.

    Attributes
    ----------
    params, grads : ndarray, shape (layout.size,)
        Flat blocks. ``grads`` holds this rank's gradient sum until it is summed over
        the ranks.
    """

    minimiser = None  # updates the parameters instead of an optimizer
    _wire = None  # the compressed sum over the ranks

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        self.params, self.grads = self._make_blocks()
        self.param_views = layout.views(self.params)
        self.grad_views = layout.views(self.grads)
        self._scratch = self._scratch_views = None

    def holdings(self):
        """Return parameters, optimizer state and error feedback of compression."""
        return [
            held("params", self.layout, self.params, self.ops),
            *optimizer_holdings(self._optimizer, self.layout, self.ops),
            *self._minimiser_holdings(),
            *(self._wire.holdings(self.layout) if self._wire is not None else ()),
        ]

    def loaded(self):
        """Called after the holdings were written from a saved state."""
        if self._wire is not None:
            self._wire.loaded()

    def numbers(self):
        """Return the rest of the state, as plain values by name."""
        if self.minimiser is not None:
            return self.minimiser.numbers()
        return super().numbers()

    def take_numbers(self, numbers):
        """Restore the values that `numbers` returned."""
        if self.minimiser is not None:
            self.minimiser.take_numbers(numbers)
        else:
            super().take_numbers(numbers)

    def _minimiser_holdings(self):
        return () if self.minimiser is None else self.minimiser.holdings(self.layout)

    def _make_blocks(self):
        return self.ops.empty_block(self.layout), self.ops.empty_block(self.layout)

    def backward(self, model, params, index, last):
        """Write the micro-batch's gradient sum to ``grads``, or add it there.

        Parameters
        ----------
        model : Model
            Its ``loss`` was just called for this micro-batch.
        params : sequence of ndarray
        index : int
            Of the micro-batch.
        last : bool
            Whether it is the last one, after which ``grads`` is complete.
        """
        if index == 0:
            model.gradient(params, self.grad_views)
            if not last and self.noise is not None:
                self.noise.see_batch(self.ops, self.grads)
            return
        views, scratch = self._second_block()
        model.gradient(params, views)
        if self.noise is not None:
            self.noise.see_batch(self.ops, scratch)
        self.ops.add(scratch, self.grads)

    def _second_block(self):
        """Return views and block for the gradient of a further micro-batch."""
        if self._scratch is None:
            self._scratch = self.ops.empty_block(self.layout)
            self._scratch_views = self.layout.views(self._scratch)
        return self._scratch_views, self._scratch

    def _note_own(self):
        self.noise.see_share(self.ops, self.grads)

    @cached_property
    def _own_part(self):
        """This rank's even part of ``grads``."""
        cuts = even_cuts(0, self.grads.size, self.comm.size)
        start, stop = cuts[self.comm.rank :][:2]
        return self.grads[start:stop]

    def _own_sums(self):
        return [self._own_part]

    def _forget_gradient(self):
        """Zero a gradient that was not applied, and reset the error feedback.

        Models write only the tensors. A compressed sum, however, spreads non-finite
        values to the padding between them, where they would stay.
        """
        self.ops.fill(self.grads, 0)
        if self._wire is not None:
            self._wire.reset()

    def _move(self, lr, weight, l2, clip_norm):
        """Update ``params`` by ``grads``, or raise DivergenceError without a change."""
        if clip_norm is None:
            square = self.ops.square(self.grads)
            require_usable_square(square, lr / weight, self.grads.dtype)
        try:
            self._optimizer.update(
                self.params,
                self.grads,
                lr=lr,
                grad_scale=1.0 / weight,
                l2=l2,
                clip_norm=clip_norm,
            )
        except DivergenceError as error:  # by the norm; `_divergence` adds advice
            raise DivergenceError("the gradient became NaN or infinite") from error


def require_usable_square(square, scale, dtype):
    """Raise DivergenceError unless a step along ``scale * grads`` stays finite.

    ``square`` is |grads|^2 by ``ops.square``: NaN if an element is not finite. For a
    sharded block, pass the sum over its shards. A step whose squared length overflows
    is refused too: the loss after it would be infinite and the parameters lost.
    """
    if math.isnan(square):
        raise DivergenceError("the gradient became NaN or infinite")
    if scale * math.sqrt(square) > LARGEST_STEP[dtype.char]:
        raise DivergenceError(f"the step became too large for {dtype}")
