"""The parts of a training on all ranks, and what they tell."""

import copy
from dataclasses import fields, replace

from pympi_train.comm.checks import is_agreed
from pympi_train.comm.watch.recorder import Recorder
from pympi_train.optim.schedule import Constant
from pympi_train.parallel.settings import Parallel
from pympi_train.trace.ring import Trace
from pympi_train.train.gradient_noise import GradientNoise
from pympi_train.train.passes import outputs
from pympi_train.train.progress import Progress
from pympi_train.train.record import Speed
from pympi_train.train.setup.agreement import require_parts, require_same_ranks
from pympi_train.train.setup.assembly import Assembly
from pympi_train.train.stopping import EarlyStopping


class BaseTrainer:
    """What `Trainer` is made of: its parts, their values, and passes without training.

    The arguments are those of `Trainer`, and so are the attributes.

    Notes
    -----
    Collective.
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
        gradient_noise=False,
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
        self.noise = GradientNoise() if gradient_noise else None
        self._steered = None  # set by the first call of `step`
        self.kept = self.ended = self._recorder = None
        self.is_fitting = False
        settings = {
            "parts": {
                "optimizer": optimizer,
                "schedule": schedule,
                "parallel": self.parallel,
                "gradient_noise": self.noise,
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
        self.stop_trace()  # the communicator may live on
        self._everyone = None
        self._made.free()

    def start_trace(self, n_spans=2**16, max_share=None):
        """Record what this rank does from now on; return the `Trace`.

        Parameters
        ----------
        n_spans : int
            Maximum number of spans that are kept; the newest replace the oldest.
        max_share : float, optional
            Maximum share of the time that recording may take: of short steps, only one
            of 2, 4, 8 ... is recorded then. By default, all are.

        Notes
        -----
        Not collective. The communicators of the Trainer's Ranks record their calls in
        one Trace, the last one started.
        """
        self._require_alive()
        trace = Trace(n_spans)
        made_of = self._everyone, self.strategy.laps, trace, max_share
        self.stop_trace()
        self._recorder = Recorder(*made_of)
        self.strategy.record(self._recorder)
        return trace

    def stop_trace(self):
        """Record no longer; the `Trace` keeps its spans. Not collective."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder = None
            self.strategy.record(None)

    @property
    def trace_every(self):
        """The number k if one of k steps is recorded; 1: all."""
        return 1 if self._recorder is None else self._recorder.every

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

    def _require_idle(self):
        self._require_alive()
        if self.is_fitting:
            raise RuntimeError("this Trainer is in fit: wait until it has returned")

    def _require_alive(self):
        if self._everyone is None:
            raise RuntimeError("this Trainer was freed: make another one")
