"""The interface between a strategy and the training loop."""

import abc
import contextlib
from typing import NamedTuple

from pympi_train.comm.checks import agreed_within, is_agreed, together
from pympi_train.comm.watch.abort import abort
from pympi_train.comm.watch.drift import require_same
from pympi_train.comm.watch.guard import marker
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.parallel.stateful import Stateful
from pympi_train.trace import Laps

ADVICE = "try a smaller [optimizer] learning_rate, or clip_norm"


class Outcome(NamedTuple):
    """Weight and loss of a step's global batch, and whether to stop.

    Attributes
    ----------
    weight : float
        Total weight of its samples; see `Strategy.totals` for those of which ranks.
    loss : float
        Mean loss with the L2 term, before the update.
    stop : bool
        Whether some rank requested to end the training after this step. Equal on all
        ranks.
    """

    weight: float
    loss: float
    stop: bool = False


class Strategy(Stateful, abc.ABC):
    """Who holds which parameters, gradients and optimizer state, and what travels.

    Each strategy has a step of its own.

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
    param_views : sequence of ndarray
        Tensors in model order, for the model's calls.
    count : int
        Updates done.
    laps : Laps
        Seconds by phase on this rank.
    sent_bytes : int
        Payload that this rank has sent so far in exchanges of gradients and
        parameters; for MPI's own collectives, what an ideal algorithm sends.
    chosen : dict
        The values chosen for "auto" settings, by key of ``[parallel]``, and further
        facts to report.
    """

    choosing = False  # steps are still taken in turn in two ways, to choose one
    serves = False  # this rank holds parameters for others, and computes nothing
    synchronises_in_forward = False  # so all ranks have to run as many batches

    def __init__(self, comm, layout, optimizer, ops):
        self.comm, self.layout, self.ops = comm, layout, ops
        self._optimizer = optimizer
        self.laps, self.sent_bytes, self.chosen = Laps(), 0, {}
        self.count, self._checked = 0, 0
        self._mark = marker(comm)
        self.bind(None)

    def bind(self, model, *, l2=0.0, clip_norm=None, check_every=0):
        """Set the model and the constants of all steps.

        Parameters
        ----------
        model : Model
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Maximum norm of the mean gradient.
        check_every : int
            Steps between two comparisons of the ranks' parameters; 0: none.
        """
        self._model, self._l2, self._clip_norm = model, l2, clip_norm
        self._check_every = check_every

    def init(self, model, seed):
        """Write the model's starting point into the parameters. Collective."""
        init_block(model, seed, self.layout, self.params, self.ops)

    @abc.abstractmethod
    def step(self, feed, rows, lr, *, error=None, stop=False):
        """Update the parameters by one global batch.

        Parameters
        ----------
        feed : Feed
            Where this rank's rows come from.
        rows : slice or ndarray of intp
            This rank's share of the batch; may be empty.
        lr : float
            Learning rate.
        error : Exception, optional
            An error on this rank since the last step. All ranks then raise instead of
            taking this step.
        stop : bool
            Whether this rank wants the training to end after this step.

        Returns
        -------
        Outcome

        Raises
        ------
        DivergenceError
            On every rank, if loss or gradient is NaN or infinite; the parameters are
            unchanged.
        RemoteRankError
            If another rank failed in this step; that rank raises its own error. The
            parameters are unchanged.
        DriftError
            On every rank, if their parameters are no longer equal.

        Notes
        -----
        Collective.
        """

    def pass_over(self, feed, rows, do, n_forwards):
        """Call ``do(batch)`` for all batches of this rank's ``rows``.

        Parameters
        ----------
        feed : Feed
        rows : slice
        do : callable
            Computes with ``param_views``.
        n_forwards : int
            How many forward passes of the model it makes.

        Raises
        ------
        RemoteRankError
            If ``do`` raised on another rank; that rank raises its own error.

        Notes
        -----
        Collective.
        """
        with together(self.comm):
            for batch in feed.batches(rows):
                do(batch)

    def totals(self, weight, loss):
        """Return sums over steps of weight, and of weight times loss, for all ranks.

        ``weight`` and ``loss`` are this rank's sums of what its steps returned.
        Collective where ranks do not synchronise in each step.
        """
        return weight, loss

    def share_of_totals(self, weight, loss):
        """Return sums that are this rank's share of what `totals` returned."""
        return weight, loss

    def count_bytes(self, n_bytes):
        """Add to what this rank has sent."""
        self.sent_bytes += n_bytes

    def mark(self, place):
        """Note where this rank is, for the watchdog: one of ``journal``'s places."""
        self._mark(place, self.count)

    def expect(self, takes):
        """Take note of the order in which the model takes its tensors.

        ``takes`` is what `train.rehearsal.rehearse` returns.
        """

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

        Flat, as the layout says; where ranks do not synchronise in each step, what is
        alike after ``settle``.
        """
        return self.whole()

    def settle(self):
        """Make ``whole`` equal on all ranks: before measuring and saving. Collective.

        Returns
        -------
        bool
            Whether some rank wants the training to end, where that is known only now.

        Raises
        ------
        DivergenceError, RemoteRankError
            As a step, if some of an unfinished exchange did not go well.
        """
        return False

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64. Collective.

        On a GPU it may still be to come.
        """
        if l2 == 0:
            return 0.0
        return 0.5 * l2 * self.ops.weights_square(self.params, self.layout.runs())

    def go_on_from(self, count):
        """Count updates from ``count`` on."""
        self.count = self._checked = count

    def check_drift(self):
        """Compare the ranks' parameters where it is time to. Collective."""
        every = self._check_every
        if not every or self.count // every == self._checked // every:
            return
        self._checked = self.count
        replicas = self.replicas()
        if replicas is not None:
            when = f"after step {self.count}"
            require_same(self.comm, self.layout, replicas, when)
        self.laps.lap("communication")

    def free(self):
        """Free what was made for the exchange. Collective; parameters stay."""

    def _await_losses(self, losses):
        """Return the sum of the losses of micro batches, waiting for them on a GPU."""
        return sum(map(float, losses))

    def _forget_gradient(self):
        """Drop a gradient that was not used."""

    def _divergence(self, what):
        """Return the error that all ranks raise for a step that is not taken."""
        text = f"{what} at step {self.count + 1}; the parameters are those before it: "
        return agreed_within(self.comm, DivergenceError(text + ADVICE))


def leave(comm, error):
    """Raise ``error``; end the program first if this rank raised it alone.

    For what happens inside MPI, NCCL or CUDA or during an update: the other ranks wait
    where they cannot be told, or have moved their parameters.
    """
    if not is_agreed(error, comm):
        abort(comm, error)
    raise error


def is_of_mpi(error):
    """Return whether ``error`` was raised by MPI itself: then no exchange can go on."""
    from mpi4py import MPI

    return isinstance(error, MPI.Exception)


def init_block(model, seed, layout, block, ops):
    """Write the model's starting point into ``block``, wherever it lies."""
    if not ops.ON_DEVICE:
        model.init(layout.views(block), seed)
        return
    host = empty_block(layout)  # models write with NumPy
    model.init(layout.views(host), seed)
    ops.from_host(host, block)
