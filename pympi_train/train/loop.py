"""The training loop: the same steps at any number of ranks."""

import time
from dataclasses import fields, replace

import numpy as np

from pympi_train.backends.select import select
from pympi_train.backends.threads import limit_to_one
from pympi_train.comm import collectives
from pympi_train.comm import journal as j
from pympi_train.comm.checks import agreed, together
from pympi_train.comm.guard import guarded, marker
from pympi_train.comm.mesh import resolve, set_threads
from pympi_train.data.groups import own_cuts, regrouped
from pympi_train.data.order import plan_epoch
from pympi_train.errors import ConfigError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.trace import PHASES
from pympi_train.train.agreement import agree_on_fit, agree_on_trainer
from pympi_train.train.exact_step import MISPLACED, ExactStep, GroupFeed
from pympi_train.train.feed import Feed
from pympi_train.train.free_step import FreeStep
from pympi_train.train.iterate import iterate
from pympi_train.train.metrics import Evaluator, ExactEvaluator
from pympi_train.train.parallel import Parallel, require_sense
from pympi_train.train.rehearsal import rehearse
from pympi_train.train.step import Step
from pympi_train.train.stopping import EarlyStopping, choose
from pympi_train.train.strategies import make_roles, make_strategy


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
        GD, SGD, Adam, AdamW or LBFGS.
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
    backend : "auto", "numpy" or "numba"
        Of the hot loops; the model is told to use it.
    parallel : Parallel, optional
        How the ranks share the training; as ``[parallel]`` of a configuration.
    comm : MPI.Comm, optional
        Duplicated; COMM_WORLD by default.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the rows; on a server, the servers.
    params : ndarray, shape (layout.size,)
        The flat parameter block, equal on every rank.
    epoch, samples : int
        Epochs done, and rows that went into them, over all ranks.
    kept : dict
        After ``fit``: the record of the epoch that left these parameters, the best
        one where there is ``patience``, else the last.
    ended : str
        After ``fit``, why it ended: "epochs", "patience", or for LBFGS "gradient"
        (within tolerance), "decrease" or "line search" (nothing more to gain).
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
        parallel=None,
        comm=None,
    ):
        self.parallel = Parallel() if parallel is None else parallel
        self._everyone = self.comm = resolve(comm).Dup()
        agree_on_trainer(
            self.comm,
            model.layout,
            {
                "optimizer": optimizer,
                "schedule": schedule,
                "parallel": self.parallel,
            },
            {"batch_size": batch_size, "micro_batch_size": micro_batch_size},
            {"seed": seed, "l2": l2, "clip_norm": clip_norm},
        )
        self._everyone = self.comm = guarded(self.comm, *self.parallel.guard)
        self.model, self.optimizer, self.seed, self.l2 = model, optimizer, seed, l2
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.schedule = Constant() if schedule is None else schedule
        self.epoch = self.samples = 0
        self.kept = self.ended = None
        # In exact mode, how many groups the rows are cut into.
        exact = self.parallel.reduction == "exact"
        self._n_groups = self.parallel.virtual_shards if exact else None
        self.n_threads = limit_to_one() if exact else set_threads(self.comm)
        with together(self.comm):
            self.backend = select(backend)
            self._ops = self.backend.ops
            model.use(self._ops)
            require_sense(self.parallel, type(optimizer).__name__.lower())
        self._roles = make_roles(self.parallel, self._everyone)
        if self._roles is not None:
            self.comm = self._roles.comm
        self._strategy = make_strategy(
            self.parallel,
            self.comm,
            model,
            None if isinstance(optimizer, LBFGS) else optimizer,
            self._ops,
            roles=self._roles,
        )
        with together(self._everyone):
            self._strategy.init(model, seed)
        kind = Step if self._strategy.synchronous else FreeStep
        kind = ExactStep if exact else kind
        self._step = kind(
            self.comm,
            model,
            self._strategy,
            l2=l2,
            clip_norm=clip_norm,
            check_every=self.parallel.check_every,
        )
        self._mark = marker(self.comm)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # A rank that raised alone must not wait for the others here.
        if error is None or getattr(error, "agreed", False):
            self.free()

    def free(self):
        """Free the communicator. Collective; the parameters stay."""
        if self._everyone:  # a communicator that was freed counts as false
            self._strategy.free()
            if self._roles is not None:
                self._roles.free()
            self._everyone.Free()

    @property
    def params(self):
        """The flat parameter block, equal on every rank. Collective if sharded."""
        return self._strategy.whole()

    @property
    def serves(self):
        """Whether this rank is a server: it has no rows, and its ``fit`` serves."""
        return self._strategy.serves

    @property
    def resolved(self):
        """``parallel`` with what its "auto" settings became."""
        chosen = self._strategy.chosen
        keys = {f.name: chosen[f.name] for f in fields(Parallel) if f.name in chosen}
        return replace(self.parallel, **keys)

    @property
    def exchange(self):
        """What "auto" settings became, with the seconds that decided; as a dict."""
        return dict(self._strategy.chosen)

    @property
    def choosing(self):
        """Whether steps are still taken in turn in two ways, to choose one."""
        return self._strategy.choosing

    @property
    def steps(self):
        """Updates done."""
        return self._step.count

    @property
    def laps(self):
        """Seconds by phase on this rank since the epoch began."""
        return self._step.laps

    def weights(self):
        """Return the tensors by name, as views that further training may change.

        Collective where the parameters are sharded.
        """
        return self.model.layout.named(self.params)

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

        Parameters
        ----------
        train, validation : Dataset
            Made on this trainer's ``comm``. Validation rows are only measured; None
            for none. A server gives None for both.
        epochs : int
            Passes over the training rows; for LBFGS, most iterations.
        patience : int, optional
            Stop after so many epochs without a better ``monitor``, and go back to
            the best parameters.
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
            seconds by phase and sent_bytes, averaged over the ranks. On a server, none.

        Raises
        ------
        DivergenceError
            On every rank, if the loss or the gradient becomes NaN or infinite; the
            parameters are the last good ones.
        RemoteRankError
            If another rank failed before it sent its share of a step.

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting. An exception on
        one rank after it sent its share of a step ends the job.
        """
        if self.serves:
            self._step.count += self._strategy.serve()
            return []
        with self._strategy.fitting():
            return self._fit(
                train, validation, epochs, patience, monitor, on_epoch, on_step
            )

    def _fit(self, train, validation, epochs, patience, monitor, on_epoch, on_step):
        """`fit` on a rank that has a share of the rows."""
        agree_on_fit(self.comm, train, validation, epochs, patience, monitor)
        with together(self.comm):
            monitor = choose(monitor, self.model.task, validation is not None)
        train = self._placed(train)
        feed = self._feed(train)
        evaluate = self.evaluator(validation) if validation is not None else None
        stopping = patience and EarlyStopping(
            self.comm, self._strategy.own, patience, monitor
        )
        records = []

        def finish(epoch_record):
            """Complete the record of an epoch; return whether to stop. Collective."""
            records.append(self._complete(epoch_record, train.n, evaluate))
            self._mark(j.END_OF_EPOCH, self._step.count)
            if on_epoch is not None:
                on_epoch(records[-1])
            return bool(stopping) and stopping.should_stop(records[-1])

        # NaN and infinity end in one DivergenceError, not in warnings of every rank.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if isinstance(self.optimizer, LBFGS):
                self.ended = self._iterate(feed, len(train), epochs, finish)
            else:
                self.ended = self._descend(feed, train, epochs, finish, on_step)
        self.kept = records[-1]
        if stopping:
            stopping.restore_best()
            self._strategy.restored()
            self.kept = records[stopping.best_epoch - records[0]["epoch"]]
        return records

    def prepare(self, dataset):
        """Return ``step(rows)``, which trains on local rows of ``dataset`` once.

        For those who time or steer steps themselves; ``fit`` is the usual way.
        Collective, and so is ``step``.
        """
        if self._roles is not None:
            raise ConfigError("parallel: strategy server trains by fit alone")
        if self._placed(dataset) is not dataset:
            raise agreed(ConfigError(f"prepare: {MISPLACED}"))
        feed = self._feed(dataset)
        return lambda rows: self._step.run(feed, rows, self.optimizer.lr)

    def _feed(self, dataset):
        """Return the dataset as batches, everything compiled. Collective."""
        y_dtype = getattr(self.model, "y_dtype", None)
        with together(self.comm):
            if self._n_groups is None:
                feed = Feed(dataset, self.micro_batch_size, self._ops, y_dtype)
            else:
                cuts = own_cuts(
                    dataset.n, self._n_groups, self.comm.rank, self.comm.size
                )
                feed = GroupFeed(
                    dataset, cuts, self.micro_batch_size, self._ops, y_dtype
                )
            feed.check(self.model)
        rehearse(self.comm, self.model, self.optimizer, self._ops, feed, self.l2)
        return feed

    def _placed(self, dataset):
        """In exact mode: the dataset with rows where their groups are. Collective."""
        if self._n_groups is None:
            return dataset
        limit_to_one()  # again: another Trainer may have set its share since
        return regrouped(dataset, self._n_groups, self.comm)

    def evaluator(self, dataset):
        """Return a function of no arguments that measures ``dataset``. Collective."""
        kwargs = {"micro_batch_size": self.micro_batch_size, "ops": self._ops}
        kind, kwargs["meets"] = Evaluator, self._strategy.meets_in_forward(1)
        if self._n_groups is not None:
            kind, kwargs["n_groups"] = ExactEvaluator, self._n_groups
        measure = kind(self.model, self._placed(dataset), self.comm, **kwargs)
        return lambda: measure(self._strategy.param_views)

    def _descend(self, feed, train, epochs, finish, on_step):
        """Epochs of steps, each by the gradient of one global batch; why they end."""
        batch_size = train.n if self.optimizer.full_batch else self.batch_size
        n_steps = -(-train.n // batch_size)
        first, total = self._step.count, epochs * n_steps
        for epoch in range(self.epoch, self.epoch + epochs):
            started = self._start_epoch()
            if n_steps == 1:  # all rows, in any order: no need to gather them
                shares = [slice(0, len(train))]
            else:
                plan = plan_epoch(
                    train.n, self.seed, epoch, train.start, train.stop, batch_size
                )
                shares = map(plan.batch, range(n_steps))
            weights = losses = 0.0
            for done, rows in enumerate(shares, start=1):
                factor = self.schedule.factor(
                    self._step.count - first,
                    steps_per_epoch=n_steps,
                    total_updates=total,
                )
                lr = factor * self.optimizer.lr
                weight, loss = self._step.run(feed, rows, lr)
                weights, losses = weights + weight, losses + weight * loss
                if on_step is not None:
                    on_step(epoch + 1, done, n_steps)
            self._step.settle()
            if not self._strategy.synchronous:  # those of this rank's shares
                weights, losses = collectives.reduced(self.comm, [weights, losses])
            loss = float(losses / weights) if weights > 0 else 0.0
            if finish({"train_loss": loss, "learning_rate": lr, "started": started}):
                return "patience"
        return "epochs"

    def _iterate(self, feed, n_rows, epochs, finish):
        """L-BFGS: an iteration is an epoch; why it ends."""
        started = self._start_epoch()

        def finish_iteration(loss):
            nonlocal started
            stop = finish(
                {"train_loss": loss, "learning_rate": None, "started": started}
            )
            started = self._start_epoch()
            return stop

        return iterate(
            self.optimizer,
            self._strategy,
            self._step,
            feed,
            n_rows,
            iterations=epochs,
            l2=self.l2,
            finish=finish_iteration,
        )

    def _start_epoch(self):
        self._step.laps.reset()
        self._sent_before = self._strategy.sent_bytes
        return time.perf_counter()

    def _complete(self, record, n_rows, evaluate):
        """Return the whole record of the epoch that just ended. Collective."""
        train_s = time.perf_counter() - record.pop("started")
        self.epoch += 1
        self.samples += n_rows
        means = [self._step.laps.seconds[phase] for phase in PHASES]
        means.append(self._strategy.sent_bytes - self._sent_before)
        means = collectives.reduced(self.comm, means) / self.comm.size
        *seconds, sent_bytes = means.tolist()
        record = {
            "epoch": self.epoch,
            "step": self._step.count,
            "samples": self.samples,
            **record,
        }
        if evaluate is not None:
            self._mark(j.EVALUATION, self._step.count)
            measured = evaluate()
            record["validation_loss"] = measured.pop("loss")
            record.update(measured)
        record["samples_per_s"] = n_rows / train_s
        record["wall_s"] = train_s
        record.update(
            {f"{phase}_s": s for phase, s in zip(PHASES, seconds)}
        )
        record["sent_bytes"] = sent_bytes
        return record
