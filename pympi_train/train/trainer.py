"""The training loop: the same steps at any number of ranks."""

import copy
from dataclasses import fields, replace

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.watch.journal import at_work
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.parallel.settings import Parallel
from pympi_train.train import saving
from pympi_train.train.agreement import agree_on_fit, require_same_ranks
from pympi_train.train.assembly import Assembly
from pympi_train.train.fit import Fit
from pympi_train.train.iterate import iterate
from pympi_train.train.passes import outputs
from pympi_train.train.progress import Progress
from pympi_train.train.steered import Steered, require_steps
from pympi_train.train.stopping import EarlyStopping, choose_monitor


class Trainer:
    """Trains a model on rows spread over the ranks of a communicator.

    With the same arguments and seed, any number of ranks takes the same steps: the
    same samples in each global batch, the gradient of the whole batch, the same
    update. Results differ by the rounding of one summation order only, also where
    partitions are unequal, the last batch is short, or a rank has no row of it.

    Parameters
    ----------
    model : Model
        Or any object with its methods.
    optimizer : Optimizer
        GD, SGD, Adam, AdamW or LBFGS. The Trainer takes a copy: its state belongs to
        this training.
    batch_size : int, default 256
        Rows of a *global* batch; full-batch optimizers use everything.
    micro_batch_size : int, default 4096
        Most rows a rank computes at once; the gradients of a larger share are
        accumulated, which bounds memory and changes nothing else.
    seed : int, default 0
        Of the starting point and of the order of the rows.
    l2 : float, default 0.0
        Adds ``l2 / 2 |W|^2`` over weights to the loss.
    schedule : Schedule, optional
        Factor on the learning rate; constant by default.
    clip_norm : float, optional
        Largest norm of the mean gradient.
    backend : "auto", "numpy", "numba" or "cuda"
        Of the hot loops; the model is told to use it. auto takes the GPU if every rank
        has one that works and the model can use it.
    precision : "full", "float16" or "bfloat16"
        What a GPU computes in; parameters stay in the model's dtype.
    parallel : Parallel, optional
        How the ranks share the training; as ``[parallel]`` of a configuration.
    comm : Ranks or MPI.Comm, optional
        The ranks that train together; COMM_WORLD by default. For an MPI communicator
        the Trainer makes Ranks of its own, and frees them.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the rows; on a server, the servers.
    params : ndarray, shape (layout.size,)
        The flat parameter block, equal on every rank; with a GPU a copy of it.
    epoch, samples : int
        Epochs done, and rows that went into them, over all ranks.
    kept : dict
        After ``fit``: the record of the epoch that left these parameters, the best
        one where there is ``patience``, else the last.
    ended : str
        After ``fit``, why it ended: "epochs", "patience", "stop" (a rank called
        ``request_stop``), or for LBFGS "gradient" (within tolerance), "decrease" or
        "line search" (nothing more to gain).
    optimizer : Optimizer
        The Trainer's own copy.
    backend : Backend
        That was chosen, and why.
    n_threads : int
        Of this rank: its share of the node, unless OMP_NUM_THREADS is set; 1 where
        ``parallel`` asks for exact reduction, whatever is set.

    Notes
    -----
    Collective: all ranks make a Trainer, call its methods, and ``free`` it (or use
    it as a context manager) together.

    Examples
    --------
    >>> import numpy as np, pympi_train as pt
    >>> x = np.array([[1.0, 2], [2, 3], [3, 4], [4, 5]])
    >>> data = pt.Dataset.split(x, x[:, :1])
    >>> model = pt.Linear(2, intercept=False, dtype="float64")
    >>> with pt.Trainer(model, pt.GD(lr=0.01)) as trainer:
    ...     history = trainer.fit(data, epochs=1000)
    >>> trainer.weights()["weight"].ravel().round(3)
    array([0.646, 0.264])
    """

    def __init__(
        self,
        model,
        optimizer,
        *,
        batch_size=256,
        micro_batch_size=4096,
        seed=0,
        l2=0.0,
        schedule=None,
        clip_norm=None,
        backend="auto",
        precision="full",
        parallel=None,
        comm=None,
    ):
        self.parallel = Parallel() if parallel is None else parallel
        self.model, self.seed, self.l2 = model, seed, l2
        self.optimizer = copy.copy(optimizer)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.schedule = Constant() if schedule is None else schedule
        self.progress, self.stopping = Progress(), False
        self.watching = None  # of a fit that was interrupted
        self._steered = None  # once `step` is called
        self.kept = self.ended = None
        self.is_fitting = False
        settings = {
            "parts": {
                "optimizer": optimizer,
                "schedule": schedule,
                "parallel": self.parallel,
            },
            "counts": {"batch_size": batch_size, "micro_batch_size": micro_batch_size},
            "numbers": {"seed": seed, "l2": l2, "clip_norm": clip_norm},
            "names": {"backend": backend, "precision": precision},
        }
        made_of = comm, self.parallel, model, self.optimizer
        self._made = made = Assembly(*made_of, settings)
        self._everyone, self.ranks, self.comm = made.everyone, made.ranks, made.comm
        self.parallel, self.n_threads = made.parallel, made.n_threads
        self.backend, self.precision = made.backend, made.precision
        self.strategy, self._placement = made.strategy, made.placement

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # A rank that raised alone must not wait for the others here.
        if error is None or self._everyone is None or is_agreed(error, self._everyone):
            self.free()

    def free(self):
        """Free all but the parameters; further calls do nothing. Collective."""
        self._everyone = None
        self._made.free()

    @property
    def epoch(self):
        """Epochs done."""
        return self.progress.epoch

    @property
    def samples(self):
        """Rows that went into these epochs, over all ranks."""
        return self.progress.samples

    @property
    def params(self):
        """The flat parameter block, equal on every rank. Collective if sharded.

        With a GPU a copy in host memory.
        """
        return self.strategy.whole()

    @property
    def serves(self):
        """Whether this rank is a server: it has no rows, and its ``fit`` serves."""
        return self.strategy.serves

    @property
    def resolved(self):
        """``parallel`` with what its "auto" settings became.

        On one rank nothing travels: how it would is left as it was asked for, for
        whoever takes it to more of them.
        """
        chosen = dict(self.strategy.chosen)
        if self.ranks.size == 1:
            for key in ("transport", "overlap"):
                chosen.pop(key, None)
        keys = {f.name: chosen[f.name] for f in fields(Parallel) if f.name in chosen}
        return replace(self.parallel, **keys)

    @property
    def exchange(self):
        """What "auto" settings became, with the seconds that decided; as a dict."""
        return dict(self.strategy.chosen)

    @property
    def choosing(self):
        """Whether steps are still taken in turn in two ways, to choose one."""
        return self.strategy.choosing

    @property
    def steps(self):
        """Updates done."""
        return self.strategy.count

    @property
    def laps(self):
        """Seconds by phase on this rank since the epoch began."""
        return self.strategy.laps

    def weights(self):
        """Return the tensors by name, as views that further training may change.

        Collective where the parameters are sharded.
        """
        return self.model.layout.named(self.params)

    def request_stop(self):
        """Ask for the end of the training: all ranks end after the same step.

        Not collective: from a callback, a signal or another thread, on any rank. With
        local steps the ranks end where they synchronise next. ``fit`` may be called
        again, and goes on in the middle of the epoch.
        """
        self.stopping = True

    def fit(
        self,
        train,
        validation=None,
        *,
        epochs,
        patience=None,
        monitor="auto",
        on_epoch=None,
        on_step=None,
    ):
        """Train, and return one record an epoch.

        A second call goes on where the first ended: epochs, steps and the learning
        rate's schedule count on, which then lasts until the end of the second.

        Parameters
        ----------
        train, validation : Dataset
            Made on this trainer's ``comm``. Validation rows are only measured; None
            for none. A server gives None for both.
        epochs : int
            Passes over the training rows, the rest of one that was begun counts as
            one; for LBFGS, most iterations.
        patience : int, optional
            Stop after so many epochs without a better ``monitor``. At the end go back
            to the best epoch's parameters and optimizer state, unless the fit was
            interrupted (`request_stop`): the next one then goes on from where it was.
        monitor : str
            "train_loss", "validation_loss", "accuracy", "rmse" or "r2"; "auto" takes
            the loss on validation rows if there are any, else on training rows.
        on_epoch : callable, optional
            ``on_epoch(record)`` after each epoch, on this rank.
        on_step : callable, optional
            ``on_step(epoch, done, total)`` after each step, on this rank.

        Returns
        -------
        list of dict
            epoch, step, samples, learning_rate, train_loss (mean over the epoch, each
            batch before its update), the validation metrics, samples_per_s, wall_s,
            seconds by phase and sent_bytes, averaged over the ranks; loss_scale and
            skipped_steps in float16. On a server, none.

        Raises
        ------
        DivergenceError
            On every rank, if the loss or the gradient becomes NaN or infinite; the
            parameters are the last good ones.
        RemoteRankError
            If another rank failed: in the model, while reading rows, or in a callback.
            The parameters are those before the step.
        RankMismatchError
            If a data set was made on other ranks than these.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        self.is_fitting = True
        try:
            if self.serves:
                self.strategy.count += self.strategy.serve()
                return []
            with at_work(self._everyone), self.strategy.fitting():
                return self._fit(
                    train, validation, epochs, patience, monitor, on_epoch, on_step
                )
        finally:
            self.stopping = self.is_fitting = False

    def state(self):
        """Return this rank's part of all that the training goes on from.

        Parameters, optimizer state, what compression has lost, the scale of the loss,
        where the training stands in its epoch and schedule, and what early stopping has
        kept. Between calls of ``fit``, or at the end of an epoch; with servers not in
        ``fit``.

        Returns
        -------
        State
            In host memory. `State.merged` makes those of all ranks one.

        Raises
        ------
        RuntimeError
            If some of it is not at hand now.

        Notes
        -----
        Collective.
        """
        self._require_alive()
        return saving.state_of(self, self._everyone)

    def load_state(self, state):
        """Go on from the state of a training, on these ranks or others.

        The same model and kind of optimizer; batch size, strategy and number of ranks
        may be others. What a strategy has that the other one had not starts anew.

        Parameters
        ----------
        state : State
            Merged, of all ranks; the same on every rank.

        Raises
        ------
        DataError
            On every rank, if something is missing or does not fit; nothing has changed.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        saving.resume(self, state, self._everyone)

    def _require_idle(self):
        self._require_alive()
        if self.is_fitting:
            raise RuntimeError("this Trainer is in fit: wait until it has returned")

    def _require_alive(self):
        if self._everyone is None:
            raise RuntimeError("this Trainer was freed: make another one")

    def _fit(self, train, validation, epochs, patience, monitor, on_epoch, on_step):
        """`fit` on a rank that has a share of the rows."""
        require_same_ranks(self.comm, train, validation)
        made_of = self.comm, self.progress, self.optimizer
        agree_on_fit(*made_of, train, validation, epochs, patience, monitor)
        with together(self.comm):
            monitor = choose_monitor(monitor, self.model.task, validation is not None)
        self._made.limit_threads_again()
        train = self._placement.place(train)
        feed = self._made.feed(train)
        evaluate = self.evaluator(validation) if validation is not None else None
        stopping = self.watch(patience, monitor)
        fit = Fit(self, train, feed, evaluate, stopping, on_epoch, on_step)
        with computing():
            if fit.is_over():  # by the epochs of an earlier fit
                self.ended = "patience"
            elif isinstance(self.optimizer, LBFGS):
                self.ended = iterate(fit, epochs)
            else:
                self.ended = fit.descend(epochs)
        records = fit.records
        self.kept = records[-1] if records and not self.progress.batch else None
        if self.ended != "stop":
            self.progress.total_updates = 0  # a plan that has come to its end
            if stopping is not None and stopping.best:
                self.strategy.go_back()
                self.kept, self.watching = stopping.best, None
        return records

    def watch(self, patience, monitor):
        """Return what watches for epochs that are no better; None without patience.

        A fit that was interrupted goes on with the one before.
        """
        found = self.watching
        if not patience:
            found = None
        elif found is None or found.monitor != monitor:
            found = EarlyStopping(self.comm, patience, monitor, self.strategy.keep)
        else:
            found.patience = patience
        self.watching = found
        return found

    def prepare(self, dataset):
        """Return ``step(rows)``, which trains on local rows of ``dataset`` once.

        For those who time or steer steps themselves; ``fit`` is the usual way. A step
        returns the weight of the global batch and its mean loss.
        Collective, and so is ``step``.
        """
        self._require_idle()
        require_steps(self)
        require_same_ranks(self.comm, dataset)
        self._placement.require_placed(dataset)
        feed = self._made.feed(dataset)

        def step(rows):
            self._require_idle()
            with computing():
                outcome = self.strategy.step(feed, rows, self.optimizer.lr)
            return outcome.weight, outcome.loss

        return step

    def step(self, batch, lr=None):
        """Train once on a global batch, of which ``batch`` is this rank's share.

        For who has batches from elsewhere, or a loop of their own. Such steps count in
        ``steps``, and so in a schedule of ``fit``; they belong to no epoch.

        Parameters
        ----------
        batch : Batch
            In host memory, the model's dtypes; may be without rows. More rows than
            ``micro_batch_size`` are computed in parts.
        lr : float, optional
            The same on all ranks; the optimizer's, if it is left out: no schedule is
            asked.

        Returns
        -------
        Outcome
            Of the global batch; with local steps of this rank's share, and ranks meet
            every few steps, and by `settle`.

        Raises
        ------
        ConfigError
            On every rank, with servers, exact reduction or LBFGS.
        RankMismatchError
            On every rank, if the ranks give other learning rates.
        DivergenceError
            On every rank, if loss or gradient is NaN or infinite; the parameters are
            unchanged.
        RemoteRankError
            If another rank failed or its batch does not fit; that rank raises its own
            error. The parameters are unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        if self._steered is None:
            made_of = self._placement.feed, self._made.rehearse
            self._steered = Steered(self, *made_of, batch)
        return self._steered.step(batch, lr)

    def settle(self):
        """Let ranks meet that take local steps; after steps by hand. Collective.

        ``fit`` does so at the end of an epoch. Without local steps there is nothing to
        do.
        """
        self._require_idle()
        self.strategy.settle()

    def predict(self, dataset):
        """Return the model's outputs for this rank's rows of ``dataset``.

        Those of the parameters as they are now, in batches, wherever they lie.

        Parameters
        ----------
        dataset : Dataset
            Made on this trainer's ``comm``; its targets may be None.

        Returns
        -------
        ndarray, shape (k, n_outputs)
            Linear outputs or logits; the model's ``decide`` makes them classes.

        Notes
        -----
        Collective.
        """
        self._require_alive()
        require_same_ranks(self.comm, dataset)
        return outputs(
            self.model,
            self.strategy.param_views,
            dataset,
            self.comm,
            max_rows=self.micro_batch_size,
            ops=self.backend.ops,
            dtype=self.precision.dtype,
            pass_over=self.strategy.pass_over,
        )

    def evaluator(self, dataset):
        """Return a function of no arguments that measures ``dataset``. Collective."""
        self._require_alive()
        require_same_ranks(self.comm, dataset)
        measure = self._placement.evaluator(dataset, self.strategy.pass_over)

        def evaluate():
            self._require_alive()
            return measure(self.strategy.param_views)

        return evaluate
