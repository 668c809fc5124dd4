"""The training loop: the same steps at any number of ranks."""

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.comm.watch.journal import at_work
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.train.fit import Fit
from pympi_train.train.iterate import iterate
from pympi_train.train.resumable import Resumable
from pympi_train.train.setup.agreement import (
    FitArguments,
    agree_on_fit,
    require_movable,
    require_same_ranks,
)
from pympi_train.train.steered import Steerable
from pympi_train.train.stopping import choose_monitor


class Trainer(Resumable, Steerable):
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
    gradient_noise : bool
        Estimate the critical batch size from the norms of gradients; each epoch's
        record then has ``gradient_noise``. Not with strategies server and local,
        sharding beyond stage 1, compression, or LBFGS.
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
        After ``fit``, why it ended: "epochs", "patience", "target", "stop" (a rank
        called ``request_stop`` before the last step), or for LBFGS "gradient" (within
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
        target=None,
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
        target : float, optional
            Stop after the first epoch whose ``monitor`` has reached this value: is at
            least as high, or, for losses and RMSE, as low.
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
            ``balance`` rows_least, rows_most and rank_of_least; with gradient_noise the
            dict of `gradient_noise.noise_scale`. A server returns an empty list.

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
        limits = epochs, patience, monitor, target
        given = FitArguments(train, validation, *limits, balance, on_epoch, on_step)
        self._require_idle()
        self.is_fitting = True
        try:
            if self.serves:
                asks = lambda: self.stopping  # noqa: E731
                self.strategy.count += self.strategy.serve(asks)
                return []
            with at_work(self._everyone), self.strategy.fitting():
                return self._fit(given)
        finally:
            self.stopping = self.is_urgent = self.is_fitting = False

    def _fit(self, given):
        """`fit` on a rank that has a share of the rows."""
        require_same_ranks(self.comm, given.train, given.validation)
        agree_on_fit(self.comm, self.progress, self.optimizer, given)
        if given.balance:
            require_movable(self.comm, self.parallel, given.train)
        with together(self.comm):
            has_validation = given.validation is not None
            monitor = choose_monitor(given.monitor, self.model.task, has_validation)
        self._made.limit_threads_again()
        train = self._placement.place(given.train)
        given = given._replace(train=train, monitor=monitor)
        stopping = self.watch(given.patience, monitor)
        fit = Fit(self, self._made, given, stopping, self._speed)
        with computing():
            if fit.is_over():  # patience ran out in an earlier fit
                self.ended = "patience"
            elif isinstance(self.optimizer, LBFGS):
                self.ended = iterate(fit, given.epochs)
            else:
                self.ended = fit.descend(given.epochs)
        records = fit.records
        self.kept = records[-1] if records and not self.progress.batch else None
        if self.ended != "stop":
            self.progress.total_updates = 0  # the schedule has reached its end
            if stopping is not None and stopping.best:
                self.strategy.go_back()
                self.kept, self.watching = stopping.best, None
        return records
