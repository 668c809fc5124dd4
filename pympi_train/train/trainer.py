"""The training loop: the same steps at any number of ranks."""

import copy
from dataclasses import fields, replace

from pympi_train.backends.environment import computing
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.checkpoint.write import Writing
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.watch.journal import at_work
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.parallel.settings import Parallel
from pympi_train.train import saving
from pympi_train.train.agreement import (
    agree_on_fit,
    require_movable,
    require_parts,
    require_same_ranks,
)
from pympi_train.train.assembly import Assembly
from pympi_train.train.fit import Fit
from pympi_train.train.iterate import iterate
from pympi_train.train.passes import outputs
from pympi_train.train.progress import Progress
from pympi_train.train.record import Speed
from pympi_train.train.steered import Steered, require_steps
from pympi_train.train.stopping import EarlyStopping, choose_monitor


class Trainer:
    """Trains a model on rows spread over the ranks of a communicator.

    With the same arguments and seed, any number of ranks takes the same steps: the
    same samples in each global batch, the gradient of the whole batch, the same
    update. Results differ only by rounding, because the order of summation differs.
    This also holds if partitions are unequal, the last batch is short, or a rank has
    no row of a batch.

    Parameters
    ----------
    model : Model
        Or any object with its methods.
    optimizer : Optimizer
        GD, SGD, Adam, AdamW, AdaGrad or LBFGS. The Trainer takes a copy: its state
        belongs to this training.
    batch_size : int, default 256
        Rows of a *global* batch; full-batch optimizers use all rows.
    micro_batch_size : int, default 4096
        Maximum number of rows a rank computes at once. For a larger share, gradients
        are accumulated; this bounds memory and changes nothing else.
    seed : int, default 0
        Seed of the initial parameters and of the order of the rows.
    l2 : float, default 0.0
        Adds ``l2 / 2 |W|^2`` over weights to the loss.
    schedule : Schedule, optional
        Factor on the learning rate; constant by default.
    clip_norm : float, optional
        Maximum norm of the mean gradient.
    backend : "auto", "numpy", "numba" or "cuda"
        Backend of the hot loops and of the model. "auto" takes the GPU if every rank
        has one that works and the model can use it.
    precision : "full", "float16" or "bfloat16"
        Precision in which a GPU computes; parameters stay in the model's dtype.
    parallel : Parallel, optional
        How the ranks share the training, as ``[parallel]`` of a configuration.
    comm : Ranks or MPI.Comm, optional
        The ranks that train together; COMM_WORLD by default. For an MPI communicator
        the Trainer makes Ranks of its own, and frees them.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the rows; on a server, the servers.
    params : ndarray, shape (layout.size,)
        The flat parameter block, equal on every rank; with a GPU, a copy of it.
    epoch, samples : int
        Epochs done, and rows used in them, over all ranks.
    kept : dict
        After ``fit``: the record of the epoch of the current parameters. With
        ``patience`` it is the best epoch, else the last.
    ended : str
        After ``fit``, why it ended: "epochs", "patience", "stop" (a rank called
        ``request_stop`` before the last step), or for LBFGS "gradient" (within
        tolerance), "decrease" or "line search" (no further decrease possible).
    optimizer : Optimizer
        The Trainer's own copy.
    backend : Backend
        The chosen backend, with the reason.
    n_threads : int
        Threads of this rank: its share of the node, unless OMP_NUM_THREADS is set.
        With exact reduction always 1.

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
        schedule = Constant() if schedule is None else schedule
        parallel = Parallel() if parallel is None else parallel
        require_parts(model, optimizer, schedule, parallel)
        self.parallel, self.schedule = parallel, schedule
        self.model, self.seed, self.l2 = model, seed, l2
        self.optimizer = copy.copy(optimizer)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.progress, self.stopping, self.is_urgent = Progress(), False, False
        self.watching = None  # EarlyStopping of an interrupted fit
        self._speed = Speed()
        self._steered = None  # set by the first call of `step`
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
        """Free everything except the parameters; further calls do nothing. Collective.
        """
        self._everyone = None
        self._made.free()

    @property
    def epoch(self):
        """Epochs done."""
        return self.progress.epoch

    @property
    def samples(self):
        """Rows used in these epochs, over all ranks."""
        return self.progress.samples

    @property
    def params(self):
        """The flat parameter block, equal on every rank. Collective if sharded.

        With a GPU, it is a copy in host memory.
        """
        return self.strategy.whole()

    @property
    def serves(self):
        """Whether this rank is a server, which has no rows and serves in ``fit``."""
        return self.strategy.serves

    @property
    def resolved(self):
        """``parallel`` with the values chosen for its "auto" settings.

        One rank exchanges nothing, so "transport" and "overlap" keep the values that
        were asked for. The result can then be used on several ranks.
        """
        chosen = dict(self.strategy.chosen)
        if self.ranks.size == 1:
            for key in ("transport", "overlap"):
                chosen.pop(key, None)
        keys = {f.name: chosen[f.name] for f in fields(Parallel) if f.name in chosen}
        return replace(self.parallel, **keys)

    @property
    def exchange(self):
        """The values chosen for "auto" settings and their timings, as a dict."""
        return dict(self.strategy.chosen)

    @property
    def choosing(self):
        """Whether steps still alternate between two variants to choose the faster."""
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

        Collective if the parameters are sharded.
        """
        return self.model.layout.named(self.params)

    def request_stop(self, at_once=False):
        """Request the end of the training: all ranks end after the same step.

        Parameters
        ----------
        at_once : bool
            Also end an evaluation of the validation rows, at its next micro-batch. It
            begins again when the training goes on.

        Notes
        -----
        Not collective: any rank may call it, from a callback, a signal handler or
        another thread. With local steps the ranks end at their next synchronisation.
        ``fit`` may be called again, and continues in the middle of the epoch.
        """
        self.stopping = True
        self.is_urgent = self.is_urgent or at_once

    def fit(
        self,
        train,
        validation=None,
        *,
        epochs,
        patience=None,
        monitor="auto",
        balance=False,
        on_epoch=None,
        on_step=None,
    ):
        """Train, and return one record per epoch.

        A second call continues where the first ended. Epochs and steps count on, and
        the learning rate's schedule now ends with the second call.

        Parameters
        ----------
        train, validation : Dataset
            Made on this trainer's ``comm``. Validation rows are evaluated, not trained
            on. A server passes None for both.
        epochs : int
            Passes over the training rows; the rest of an unfinished epoch counts as
            one. For LBFGS, the maximum number of iterations.
        patience : int, optional
            Stop after this many epochs without improvement of ``monitor``. At the end,
            restore the parameters and optimizer state of the best epoch. An
            interrupted fit (`request_stop`) restores nothing: the next call continues
            from its last step.
        monitor : str
            "train_loss", "validation_loss", "accuracy", "rmse" or "r2". "auto" takes
            the validation loss if there are validation rows, else the training loss.
        balance : bool
            Move training rows from slow ranks to fast ones, after each epoch in which
            ranks took unequal times. ``train`` itself changes: its ``start`` and
            ``stop``. With exact reduction, whole groups of rows move.
        on_epoch : callable, optional
            ``on_epoch(record)`` after each epoch, on this rank.
        on_step : callable, optional
            ``on_step(epoch, done, total)`` after each step, on this rank.

        Returns
        -------
        list of dict
            Each record has epoch, step, samples, learning_rate, train_loss (mean over
            the epoch, each batch before its update), the validation metrics,
            samples_per_s, and the means over the ranks of wall_s, seconds by phase and
            sent_bytes. In float16 it also has loss_scale and skipped_steps; with
            ``balance`` rows_least, rows_most and rank_of_least. A server returns an
            empty list.

        Raises
        ------
        DivergenceError
            On every rank, if the loss or the gradient becomes NaN or infinite. The
            parameters are those before that step.
        RemoteRankError
            If another rank failed: in the model, while reading rows, or in a callback.
            The parameters are those before the step.
        RankMismatchError
            If a data set was made on other ranks than this Trainer.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        self.is_fitting = True
        try:
            if self.serves:
                asks = lambda: self.stopping  # noqa: E731
                self.strategy.count += self.strategy.serve(asks)
                return []
            with at_work(self._everyone), self.strategy.fitting():
                return self._fit(
                    train,
                    validation,
                    epochs,
                    patience,
                    monitor,
                    balance,
                    on_epoch,
                    on_step,
                )
        finally:
            self.stopping = self.is_urgent = self.is_fitting = False

    def state(self, copies=True):
        """Return this rank's part of the state from which the training can resume.

        The state holds the parameters, the optimizer state, the residuals of
        compression, the loss scale, the position in the epoch and the schedule, and
        the best epoch of early stopping. Call it between calls of ``fit``, or at the
        end of an epoch; with servers only outside ``fit``.

        Parameters
        ----------
        copies : bool
            False: it may hold the arrays of the training themselves, which the next
            step changes.

        Returns
        -------
        State
            In host memory. `State.merged` merges the states of all ranks.

        Raises
        ------
        RuntimeError
            If part of the state is not available at this time.

        Notes
        -----
        Collective.
        """
        self._require_alive()
        return saving.state_of(self, self._everyone, copies)

    def writing(self, path, *, about=None, texts=None, room_bytes=-1, done=None):
        """Return a `checkpoint.write.Writing` of the state, which has these options.

        Collective. May be called when `state` may.
        """
        self._require_alive()
        state = saving.state_of(self, self._everyone, copies=False)
        return Writing(
            state,
            path,
            self._everyone,
            about=about,
            texts=texts,
            room_bytes=room_bytes,
            done=done,
        )

    def load_state(self, state):
        """Continue from a saved state of this training or another.

        Model and kind of optimizer must be the same; batch size, strategy and number
        of ranks may differ. State that this strategy needs and the saved one did not
        have is initialised.

        Parameters
        ----------
        state : State
            Merged from all ranks; equal on every rank.

        Raises
        ------
        DataError
            On every rank, if a part is missing or does not fit. The trainer is then
            unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        saving.resume(self, state, self._everyone)

    def start_from(self, weights):
        """Start from the weights of another training instead of the initial ones.

        Call it before the first step. Tensors fit if they have the name and the shape
        of one of the model's; the others of the model keep their initial values.

        Parameters
        ----------
        weights : dict of str to ndarray
            As `weights` of another Trainer, or of `load_model`; equal on every rank.
            Anything that has ``shape``, ``dtype`` and slices serves as an array: a rank
            reads only what it holds.

        Returns
        -------
        dict of str to str
            Why tensors do not fit, by name, in either direction; empty if all do.

        Raises
        ------
        DataError
            On every rank, if none fits, or one has a NaN or an infinity. The trainer is
            then unchanged.
        ConfigError
            On every rank, if steps were taken.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        return saving.start(self, weights, self._everyone)

    def save(self, path, *, about=None, texts=None):
        """Write the `state` to a new folder, a checkpoint; return its bytes.

        All ranks write at once. Any number of ranks can `load` it.

        Parameters
        ----------
        path : str
            The folder, which must not exist.
        about : dict, optional
            Plain values to be stored with it.
        texts : dict of str to str, optional
            Files to be stored with it, and their content.

        Raises
        ------
        DataError
            On every rank, if it cannot be written; nothing is left of it.

        Notes
        -----
        Collective. May be called when `state` may.
        """
        work = self.writing(path, about=about, texts=texts)
        work.write()
        return work.finish()

    def load(self, path):
        """Continue from a checkpoint that `save` wrote, as `load_state` does.

        Raises
        ------
        DataError
            On every rank, if a file is missing or damaged, or a part does not fit. The
            trainer is then unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        self.load_state(read_checkpoint(path, self._everyone).state)

    def _require_idle(self):
        self._require_alive()
        if self.is_fitting:
            raise RuntimeError("this Trainer is in fit: wait until it has returned")

    def _require_alive(self):
        if self._everyone is None:
            raise RuntimeError("this Trainer was freed: make another one")

    def _fit(self, train, validation, epochs, patience, monitor, balance, *callbacks):
        """`fit` on a rank that has a share of the rows."""
        require_same_ranks(self.comm, train, validation)
        made_of = self.comm, self.progress, self.optimizer
        agree_on_fit(*made_of, train, validation, epochs, patience, monitor, balance)
        if balance:
            require_movable(self.comm, self.parallel, train)
        with together(self.comm):
            monitor = choose_monitor(monitor, self.model.task, validation is not None)
        self._made.limit_threads_again()
        train = self._placement.place(train)
        stopping = self.watch(patience, monitor)
        made_of = self, self._made, train, validation, stopping
        fit = Fit(*made_of, *callbacks, self._speed if balance else None)
        with computing():
            if fit.is_over():  # patience ran out in an earlier fit
                self.ended = "patience"
            elif isinstance(self.optimizer, LBFGS):
                self.ended = iterate(fit, epochs)
            else:
                self.ended = fit.descend(epochs)
        records = fit.records
        self.kept = records[-1] if records and not self.progress.batch else None
        if self.ended != "stop":
            self.progress.total_updates = 0  # the schedule has reached its end
            if stopping is not None and stopping.best:
                self.strategy.go_back()
                self.kept, self.watching = stopping.best, None
        return records

    def watch(self, patience, monitor):
        """Return the EarlyStopping of a fit, or None without patience.

        After an interrupted fit, the next one continues with the same EarlyStopping.
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

        It serves to time single steps or to write a training loop; ``fit`` is the
        usual way. A step returns the weight of the global batch and its mean loss.
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

        It serves training loops of your own and batches that are in no Dataset. Such
        steps count in ``steps``, and so in a schedule of ``fit``; they belong to no
        epoch.

        Parameters
        ----------
        batch : Batch
            In host memory, in the model's dtypes; may have no rows. More rows than
            ``micro_batch_size`` are computed in parts.
        lr : float, optional
            Learning rate, equal on all ranks; by default the optimizer's. The schedule
            is not used.

        Returns
        -------
        Outcome
            Of the global batch. With local steps it is that of this rank's share; the
            ranks synchronise every few steps, and in `settle`.

        Raises
        ------
        ConfigError
            On every rank, with servers, exact reduction or LBFGS.
        RankMismatchError
            On every rank, if the learning rate differs between ranks.
        DivergenceError
            On every rank, if loss or gradient is NaN or infinite. The parameters are
            unchanged.
        RemoteRankError
            If another rank failed or its batch does not fit. That rank raises its own
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
        """Synchronise the ranks after local steps taken by `step`. Collective.

        ``fit`` calls it at the end of an epoch. Without local steps it does nothing.
        """
        self._require_idle()
        self.strategy.settle()

    def predict(self, dataset):
        """Return the model's outputs for this rank's rows of ``dataset``.

        The outputs are computed with the current parameters, batch by batch.

        Parameters
        ----------
        dataset : Dataset
            Made on this trainer's ``comm``; its targets may be None.

        Returns
        -------
        ndarray, shape (k, n_outputs)
            Linear outputs or logits; the model's ``decide`` turns them into classes.

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
        """Return a function that returns the metrics of ``dataset``.

        Its argument is as for `train.metrics.Evaluator`. Collective.
        """
        self._require_alive()
        require_same_ranks(self.comm, dataset)
        measure = self._placement.evaluator(dataset, self.strategy.pass_over)

        def evaluate(*is_cut):
            self._require_alive()
            return measure(self.strategy.param_views, *is_cut)

        return evaluate
