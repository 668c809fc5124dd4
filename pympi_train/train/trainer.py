"""The training loop: the same steps at any number of ranks."""

from dataclasses import fields, replace

import numpy as np

from pympi_train.backends.threads import limit_to_one
from pympi_train.comm.checks import agreed, together
from pympi_train.comm.mesh import resolve, set_threads
from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch.guard import guarded, marker
from pympi_train.errors import ConfigError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.parallel.exact_step import MISPLACED
from pympi_train.parallel.make import make_roles, make_strategy
from pympi_train.parallel.precision import choose_computing
from pympi_train.parallel.settings import Parallel
from pympi_train.train.agreement import agree_on_fit, agree_on_trainer
from pympi_train.train.descend import descend
from pympi_train.train.iterate import iterate
from pympi_train.train.passes import outputs
from pympi_train.train.record import Stopwatch
from pympi_train.train.rehearsal import rehearse
from pympi_train.train.rows import make_rows
from pympi_train.train.stopping import EarlyStopping, choose_monitor

# NaN and infinity end in one DivergenceError, not in warnings of every rank. And a
# product in OpenBLAS may raise "invalid" for what it finds beside the operands.
QUIET = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}


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
    backend : "auto", "numpy", "numba" or "cuda"
        Of the hot loops; the model is told to use it. auto takes the GPU if every rank
        has one that works and the model can use it.
    precision : "full", "float16" or "bfloat16"
        What a GPU computes in; parameters stay in the model's dtype.
    parallel : Parallel, optional
        How the ranks share the training; as ``[parallel]`` of a configuration.
    comm : MPI.Comm, optional
        Duplicated; COMM_WORLD by default.

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
        precision="full",
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
            {"backend": backend, "precision": precision},
        )
        self._everyone = self.comm = guarded(self.comm, *self.parallel.guard)
        self.model, self.optimizer, self.seed, self.l2 = model, optimizer, seed, l2
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.schedule = Constant() if schedule is None else schedule
        self.epoch = self.samples = 0
        self.kept = self.ended = None
        exact = self.parallel.reduction == "exact"
        self.n_threads = limit_to_one() if exact else set_threads(self.comm)
        self.backend, self.precision = choose_computing(
            self.comm, self.parallel, model, optimizer, backend, precision, batch_size
        )
        self._ops = self.backend.ops
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
            precision=self.precision,
        )
        with together(self._everyone):
            self._strategy.init(model, seed)
        self._rows = make_rows(
            self.parallel,
            self.comm,
            model,
            self._ops,
            micro_batch_size,
            self.precision.dtype,
        )
        self._step = self._rows.step_kind(self._strategy)(
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
        """The flat parameter block, equal on every rank. Collective if sharded.

        With a GPU a copy in host memory.
        """
        return self._strategy.whole()

    @property
    def serves(self):
        """Whether this rank is a server: it has no rows, and its ``fit`` serves."""
        return self._strategy.serves

    @property
    def resolved(self):
        """``parallel`` with what its "auto" settings became.

        On one rank nothing travels: how it would is left as it was asked for, for
        whoever takes it to more of them.
        """
        chosen = dict(self._strategy.chosen)
        if self._everyone.size == 1:
            for key in ("transport", "overlap"):
                chosen.pop(key, None)
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
            seconds by phase and sent_bytes, averaged over the ranks; loss_scale and
            skipped_steps in float16. On a server, none.

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
        self._require_alive()
        if self.serves:
            self._step.count += self._strategy.serve()
            return []
        with self._strategy.fitting():
            return self._fit(
                train, validation, epochs, patience, monitor, on_epoch, on_step
            )

    def _require_alive(self):
        if not self._everyone:
            raise RuntimeError("this Trainer was freed: make another one")

    def _fit(self, train, validation, epochs, patience, monitor, on_epoch, on_step):
        """`fit` on a rank that has a share of the rows."""
        agree_on_fit(self.comm, train, validation, epochs, patience, monitor)
        with together(self.comm):
            monitor = choose_monitor(monitor, self.model.task, validation is not None)
        train = self._rows.placed(train)
        feed = self._feed(train)
        evaluate = self.evaluator(validation) if validation is not None else None
        stopping = patience and EarlyStopping(
            self.comm, self._strategy.own, self._ops, patience, monitor
        )
        records, stopwatch = [], Stopwatch(self.comm, self._strategy)

        def finish(loss, lr=None):
            """Complete the record of an epoch; return whether to stop. Collective."""
            times = stopwatch.stop(train.n)
            record = self._begin_record(train.n, loss, lr)
            if evaluate is not None:
                self._mark(j.EVALUATION, self.steps)
                measured = evaluate()
                record["validation_loss"] = measured.pop("loss")
                record.update(measured)
            records.append({**record, **times})
            self._mark(j.END_OF_EPOCH, self.steps)
            if on_epoch is not None:
                on_epoch(records[-1])
            return bool(stopping) and stopping.should_stop(records[-1])

        how = {"epochs": epochs, "start": stopwatch.start, "finish": finish}
        with np.errstate(**QUIET):
            if isinstance(self.optimizer, LBFGS):
                self.ended = iterate(self, self._step, feed, train, **how)
            else:
                how["on_step"] = on_step
                self.ended = descend(self, self._step, feed, train, **how)
        self.kept = records[-1]
        if stopping:
            stopping.restore_best()
            self._strategy.restored()
            self.kept = records[stopping.best_epoch - records[0]["epoch"]]
        return records

    def _begin_record(self, n_rows, loss, lr):
        self.epoch += 1
        self.samples += n_rows
        return {
            "epoch": self.epoch,
            "step": self.steps,
            "samples": self.samples,
            "train_loss": loss,
            "learning_rate": lr,
            **self.precision.told(),
        }

    def prepare(self, dataset):
        """Return ``step(rows)``, which trains on local rows of ``dataset`` once.

        For those who time or steer steps themselves; ``fit`` is the usual way.
        Collective, and so is ``step``.
        """
        self._require_alive()
        if self._roles is not None:
            raise ConfigError("parallel: strategy server trains by fit alone")
        if self._rows.placed(dataset) is not dataset:
            raise agreed(ConfigError(f"prepare: {MISPLACED}"))
        feed = self._feed(dataset)

        def step(rows):
            with np.errstate(**QUIET):
                return self._step.run(feed, rows, self.optimizer.lr)

        return step

    def _feed(self, dataset):
        """Return the dataset as batches, everything compiled. Collective."""
        with together(self.comm):
            feed = self._rows.feed(dataset)
            feed.check(self.model)
        with np.errstate(**QUIET):
            rehearse(
                self.comm,
                self.model,
                self.optimizer,
                self._ops,
                feed,
                self.l2,
                self.precision.dtype,
            )
        return feed

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
        Collective. A rank that stays away leaves the others waiting.
        """
        self._require_alive()
        return outputs(
            self.model,
            self._strategy.param_views,
            dataset,
            self.comm,
            most=self.micro_batch_size,
            ops=self._ops,
            dtype=self.precision.dtype,
            meets=self._strategy.meets_in_forward(1),
        )

    def evaluator(self, dataset):
        """Return a function of no arguments that measures ``dataset``. Collective."""
        meets = self._strategy.meets_in_forward(1)
        measure = self._rows.evaluator(dataset, meets)
        return lambda: measure(self._strategy.param_views)
