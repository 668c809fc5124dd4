"""What a strategy is to the training loop: how ranks share one training."""

import abc
import contextlib
import math

import numpy as np

from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.trace import Laps

LARGEST_STEP = {t: math.sqrt(np.finfo(t).max) for t in "fd"}  # by dtype.char


class Strategy(abc.ABC):
    """Who holds which parameters, gradients and optimizer state, and what travels.

    A synchronous step is: ``agree_batches``, forward, (control exchange,) ``backward``
    for each micro batch, ``combine``, ``update``. A strategy that is not synchronous
    has ``advance`` in place of ``combine`` and ``update``, and no exchange of its own
    in between.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    layout : Layout
        Of the parameters.
    optimizer : Optimizer or None
        None where the caller moves the parameters.
    ops : module
        Where updates run: ``backends.numpy.ops`` or another with its functions.

    Attributes
    ----------
    param_views, grad_views : sequence of ndarray
        Tensors in model order, for the model's calls.
    laps : Laps
        The step's stopwatch, for what a strategy sends while the model computes.
    sent_bytes : int
        Payload that this rank has sent so far in exchanges of gradients and
        parameters; for MPI's own collectives, what an ideal algorithm sends.
    chosen : dict
        What "auto" settings became, by key of ``[parallel]``; and anything else worth
        telling.
    """

    synchronous = True  # each step's weight and loss are those of all ranks
    choosing = False  # steps are still taken in turn in two ways, to choose one
    serves = False  # this rank holds parameters for others, and computes nothing
    queues_backward = False  # it may come before the control exchange
    loss_scale = 1.0  # what the loss of a step is multiplied by

    def __init__(self, comm, layout, optimizer, ops):
        self.comm, self.layout, self.ops = comm, layout, ops
        self._optimizer = optimizer
        self.laps, self.sent_bytes, self.chosen = Laps(), 0, {}

    def init(self, model, seed):
        """Write the model's starting point into the parameters. Collective."""
        init_block(model, seed, self.layout, self.params, self.ops)

    @property
    def own(self):
        """What this rank holds of the parameters: a copy of it is a way back."""
        return self.params

    def restored(self):
        """Give all ranks what was just written to ``own`` on each. Collective."""

    def fitting(self):
        """Return a context manager for one training of this rank. Collective."""
        return contextlib.nullcontext()

    def whole(self):
        """Return all parameters as one flat block in host memory. Collective.

        Equal on every rank.
        """
        return self.ops.to_host(self.params)

    def replicas(self):
        """Return what all ranks hold alike after a step, or None. Collective.

        Flat, as the layout says; where ranks do not meet in each step, what is alike
        after ``settle``.
        """
        return self.whole()

    def settle(self):
        """Make ``whole`` equal on all ranks: before measuring and saving. Collective.

        Raises
        ------
        DivergenceError, RemoteRankError
            As a step, if some of an unfinished exchange did not go well.
        """

    def meets_in_forward(self, n_batches):
        """Whether ranks meet before the control exchange, so that none may fail."""
        return False

    def agree_batches(self, n_batches):
        """Return how many micro batches this rank runs, given how many it has."""
        return n_batches

    @abc.abstractmethod
    def backward(self, model, params, index, last):
        """Run ``model.gradient`` for micro batch ``index``; ``last`` if it is that.

        The gradient sum of all micro batches is there after the last.
        """

    def combine(self):
        """Sum the gradients over the ranks. Collective."""

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the parameters from the summed gradient of a batch. Collective.

        Parameters
        ----------
        lr : float
            Learning rate of this update.
        weight : float
            Total weight of the global batch, > 0: the gradient sum is divided by it.
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Largest norm of the mean gradient.

        Raises
        ------
        DivergenceError
            On every rank, if the gradient is NaN or infinite, or so large that the
            parameters could overflow; nothing has changed.
        """

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64. Collective.

        On a GPU it may still be to come.
        """
        if l2 == 0:
            return 0.0
        return 0.5 * l2 * self.ops.weights_square(self.params, self.layout.runs())

    def verdict(self):
        """Raise what the last update found, where it is known only now.

        Raises
        ------
        DivergenceError
            On every rank, as `update`.
        """

    def at(self, point):
        """Return views of ``point``, a flat block in host memory, for the model."""
        return self.layout.views(point)

    def free(self):
        """Free what was made for the exchange. Collective; parameters stay."""


def init_block(model, seed, layout, block, ops):
    """Write the model's starting point into ``block``, wherever it lies."""
    if not ops.ON_DEVICE:
        model.init(layout.views(block), seed)
        return
    host = empty_block(layout)  # models write with NumPy
    model.init(layout.views(host), seed)
    ops.from_host(host, block)


class WholeGradient(Strategy):
    """A strategy whose ranks each have a whole block of parameters and of gradients.

    Attributes
    ----------
    params, grads : ndarray, shape (layout.size,)
        Flat blocks. ``grads`` holds this rank's gradient sum before ``combine``
        and that of all ranks after it.
    """

    def __init__(self, comm, layout, optimizer, ops):
        super().__init__(comm, layout, optimizer, ops)
        self.params, self.grads = self._make_blocks()
        self.param_views = layout.views(self.params)
        self.grad_views = layout.views(self.grads)
        self._scratch = self._scratch_views = None

    def _make_blocks(self):
        return self.ops.empty_block(self.layout), self.ops.empty_block(self.layout)

    def backward(self, model, params, index, last):
        """Write the micro batch's gradient sum, or add it to those before."""
        if index == 0:
            model.gradient(params, self.grad_views)
            return
        views, scratch = self._second_block()
        model.gradient(params, views)
        self.ops.add(scratch, self.grads)

    def _second_block(self):
        """Return views and block for a micro batch's gradient beside ``grads``."""
        if self._scratch is None:
            self._scratch = self.ops.empty_block(self.layout)
            self._scratch_views = self.layout.views(self._scratch)
        return self._scratch_views, self._scratch

    def _move(self, lr, weight, l2, clip_norm):
        """Update ``params`` by ``grads``, or raise DivergenceError before that."""
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
        except DivergenceError as error:  # found by the norm; the advice is the loop's
            raise DivergenceError("the gradient became NaN or infinite") from error


def require_usable_square(square, scale, dtype):
    """Raise DivergenceError unless a step along ``scale * grads`` stays finite.

    ``square`` is |grads|^2, NaN if an element is not finite (``ops.square``); of blocks
    in parts it adds up. A step whose squared length overflows is refused too: the loss
    after it would be infinite, the parameters lost.
    """
    if math.isnan(square):
        raise DivergenceError("the gradient became NaN or infinite")
    if scale * math.sqrt(square) > LARGEST_STEP[np.dtype(dtype).char]:
        raise DivergenceError(f"the step became too large for {np.dtype(dtype)}")
