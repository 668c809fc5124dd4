"""The interface between strategies and the training loop."""

import abc
import contextlib
from typing import NamedTuple

from pympi_train.comm.checks import agreed_within, is_agreed, together
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.abort import abort
from pympi_train.comm.watch.drift import require_same
from pympi_train.comm.watch.guard import marker, may_be_given_up
from pympi_train.comm.watch.survivors import is_survived
from pympi_train.errors import DivergenceError
from pympi_train.flat.memory import empty_block
from pympi_train.parallel.stateful import Stateful
from pympi_train.trace.laps import Laps

ADVICE = "try a smaller [optimizer] learning_rate, or clip_norm"


class Outcome(NamedTuple):
    """Weight and loss of a step's batch, and whether to stop.

    Attributes
    ----------
    weight : float
        Total sample weight: of the global batch, or of this rank's share if ranks do
        not synchronise in each step; see `Strategy.totals`.
    loss : float
        Mean loss with the L2 term, before the update.
    stop : bool
        Whether some rank requested to stop after this step. Equal on all ranks.
    """

    weight: float
    loss: float
    stop: bool = False


class Strategy(Stateful, abc.ABC):
    """Base of strategies: what each rank holds and sends, and the training step.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the batch.
    layout : Layout
        Of the parameters.
    optimizer : Optimizer or None
        None if something else updates the parameters: L-BFGS or the servers.
    ops : module
        The backend: ``backends.numpy.ops`` or another module with its functions.

    Attributes
    ----------
    param_views : sequence of ndarray
        The parameter tensors in model order, as passed to the model.
    count : int
        Steps done.
    laps : Laps
        Seconds by phase on this rank.
    trace : Trace or None
        Records this rank's spans, see `record`.
    sent_bytes : int
        Payload that this rank has sent so far in exchanges of gradients and
        parameters; for MPI's collectives, the bytes that an ideal algorithm sends.
    chosen : dict
        The values chosen for "auto" settings, by key of ``[parallel]``, and further
        facts to report.
    """

    choosing = False  # a trial is still timing two ways to take a step
    goes_on = False  # another step of the epoch follows this one
    serves = False  # this rank is a parameter server and computes no gradients
    is_replicated = False  # each rank alone has the whole state between two steps
    trace = _recorder = None
    noise = None  # a GradientNoise, which looks at the gradients of each step
    synchronises_in_forward = False  # if so, all ranks must run equally many batches

    def __init__(self, comm, layout, optimizer, ops):
        self.comm, self.layout, self.ops = comm, layout, ops
        self._optimizer = optimizer
        self.laps, self.sent_bytes, self.chosen = Laps(), 0, {}
        self.count, self._checked = 0, 0
        self._mark = self._plain_mark = marker(comm)
        self.bind(None)

    def bind(self, model, *, l2=0.0, clip_norm=None, check_every=0, noise=None):
        """Set the model and the settings that all steps share.

        Parameters
        ----------
        model : Model
        l2 : float
            Factor of ``l2 / 2 |W|^2``.
        clip_norm : float, optional
            Maximum norm of the mean gradient.
        check_every : int
            Steps between two comparisons of the ranks' parameters; 0: never.
        noise : GradientNoise, optional
            Looks at the gradients of each step.
        """
        self.noise = noise
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
            Whether this rank requests to stop after this step.

        Returns
        -------
        Outcome

        Raises
        ------
        DivergenceError
            On every rank, if the loss or gradient is NaN or infinite; the parameters
            are unchanged.
        RemoteRankError
            If another rank failed in this step; that rank raises its own error. The
            parameters are unchanged.
        DriftError
            On every rank, if the ranks' parameters are no longer equal.

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
            Number of forward passes of the model in each call.

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
        """Return the totals of weight and of weight times loss for all ranks.

        ``weight`` and ``loss`` are these sums over the outcomes of this rank's steps.
        Collective if ranks do not synchronise in each step.
        """
        return weight, loss

    def share_of_totals(self, weight, loss):
        """Return sums of this rank for which `totals` returns ``weight, loss``."""
        return weight, loss

    def count_bytes(self, n_bytes):
        """Add to ``sent_bytes``."""
        self.sent_bytes += n_bytes

    def mark(self, place):
        """Report to the watchdog where this rank is: one of ``journal``'s places."""
        self._mark(place, self.count)

    def record(self, recorder):
        """Let a `Recorder` record this rank's steps; None: no longer."""
        self._recorder = recorder
        self.trace = recorder and recorder.trace
        self._mark = self._plain_mark if recorder is None else recorder.mark
        if recorder is not None:
            recorder.end_step(self.count)

    def end_step(self):
        """Note that the step ``count`` is done."""
        self._mark(j.BETWEEN, self.count)
        recorder, step = self._recorder, self.count
        # Of most short steps nothing is recorded: they make no call.
        if recorder is None:
            return
        if recorder.is_on or step + 1 >= recorder.next:
            recorder.end_step(step)
            self._mark = recorder.mark

    def traced(self, name):
        """Return a context manager that records its body as a span, if traced.

        ``name`` is as for `Trace.span`.
        """
        if self._recorder is None:
            return contextlib.nullcontext()
        return self._recorder.span(name, self.count)

    def expect(self, takes):
        """Set the order in which the model takes its tensors.

        ``takes`` is the result of `train.setup.rehearsal.rehearse`.
        """

    def expect_sparse(self, is_sparse):
        """Prepare for steps on sparse rows, or on dense ones. Equal on all ranks."""

    def fitting(self):
        """Return a context manager for one call of ``fit``. Collective."""
        return contextlib.nullcontext()

    def whole(self):
        """Return all parameters as one flat block in host memory. Collective.

        Equal on every rank.
        """
        return self.ops.to_host(self.params)

    def replicas(self):
        """Return the flat block that is replicated on all ranks, or None. Collective.

        It is equal on all ranks after a step, or, if ranks do not synchronise in each
        step, after ``settle``.
        """
        return self.whole()

    def settle(self):
        """Make ``whole`` equal on all ranks, to evaluate or save it. Collective.

        Returns
        -------
        bool
            Whether some rank requested to stop, if no step has returned it yet.

        Raises
        ------
        DivergenceError, RemoteRankError
            As `step`, if an earlier step failed and no call has raised its error yet.
        """
        return False

    def penalty(self, l2):
        """Return ``l2 / 2 |W|^2`` over weights, in float64. Collective.

        On a GPU the value may be pending; ``float()`` waits for it.
        """
        if l2 == 0:
            return 0.0
        return 0.5 * l2 * self.ops.weights_square(self.params, self.layout.runs())

    def go_on_from(self, count):
        """Set the number of steps done to ``count``."""
        self.count = self._checked = count
        if self._recorder is not None:
            self._recorder.end_step(count)

    def check_drift(self):
        """Compare the ranks' parameters every ``check_every`` steps. Collective."""
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
        """Free the resources of the exchange; parameters stay. Collective."""

    def _await_losses(self, losses):
        """Return the sum of the micro-batches' losses; on a GPU, wait for them."""
        return sum(map(float, losses))

    def _forget_gradient(self):
        """Discard a gradient that was not applied."""

    def _divergence(self, what):
        """Return the error that all ranks raise for a step that was refused."""
        text = f"{what} at step {self.count + 1}; the parameters are those before it: "
        return agreed_within(self.comm, DivergenceError(text + ADVICE))


def leave(comm, error):
    """Raise ``error``; abort the job first if this rank alone raised it.

    For errors inside MPI, NCCL or CUDA and during an update: the other ranks cannot be
    notified, because they wait in a collective or have already updated parameters. In a
    job that outlives ranks that die, MPI notifies them; a pool gives up the job.
    """
    is_told = is_agreed(error, comm) or is_survived(comm, error)
    if not is_told and not may_be_given_up(comm):
        abort(comm, error)
    raise error


def is_of_mpi(error):
    """Return whether MPI itself raised ``error``, so that no exchange can continue."""
    from mpi4py import MPI

    return isinstance(error, MPI.Exception)


def init_block(model, seed, layout, block, ops):
    """Write the model's starting point into ``block``, in host or device memory."""
    if not ops.ON_DEVICE:
        model.init(layout.views(block), seed)
        return
    host = empty_block(layout)  # models initialise with NumPy
    model.init(layout.views(host), seed)
    ops.from_host(host, block)
