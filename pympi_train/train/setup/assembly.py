"""Builds the parts of a Trainer on all ranks."""

import contextlib
from dataclasses import replace

from pympi_train.backends.environment import computing
from pympi_train.backends.threads import limit_to_one
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.ranks import ranks_of
from pympi_train.errors import ConfigError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.parallel.make import make_roles, make_strategy
from pympi_train.parallel.precision import choose_computing
from pympi_train.parallel.settings import Parallel
from pympi_train.train.setup.agreement import agree_on_trainer
from pympi_train.train.setup.noise_rules import require_noise
from pympi_train.train.setup.placement import make_placement
from pympi_train.train.setup.rehearsal import rehearse


class Assembly:
    """The parts of a Trainer: ranks, backend, precision, strategy and placement.

    Parameters
    ----------
    comm : Ranks, MPI.Comm or None
    parallel : Parallel
    model : Model
    optimizer : Optimizer
        Used by this training only.
    settings : dict
        All arguments of the Trainer, in the form `agreement.agree_on_trainer` takes.

    Attributes
    ----------
    ranks : Ranks
    everyone : MPI.Comm
        All ranks.
    comm : MPI.Comm
        The ranks that share the batch; on a server, the servers.
    parallel : Parallel
        The argument, with the watchdog's settings of ``ranks``.
    n_threads : int
    backend : Backend
    precision : Precision
    strategy : Strategy
    placement : Placement

    Raises
    ------
    ConfigError, RankMismatchError, ValueError
        On every rank; the parts made so far are freed.

    Notes
    -----
    Collective, and so is ``free``.
    """

    def __init__(self, comm, parallel, model, optimizer, settings):
        self.parallel, self._model, self._optimizer = parallel, model, optimizer
        self._noise = settings["parts"]["gradient_noise"]
        self.everyone, self._resources = None, contextlib.ExitStack()
        try:
            self._take_ranks(comm)
            agree_on_trainer(self.everyone, model.layout, **settings)
            self._require_noise()
            self._choose(**settings["names"], **settings["counts"])
            self._require_stable(**settings["numbers"])
            self._make_strategy(**settings["numbers"])
        except Exception as error:
            # A rank that raised alone must not wait for the others here.
            if self.everyone is not None and is_agreed(error, self.everyone):
                self._resources.close()
            raise

    def _take_ranks(self, comm):
        """Take the ranks that train together. Collective."""
        parallel = self.parallel
        self.ranks, own = ranks_of(comm, parallel.timeout_s, parallel.debug)
        self.everyone = self.comm = self.ranks.comm
        if own:
            self._resources.callback(self.ranks.free)
        with together(self.everyone):
            self.parallel = _as_watched(parallel, self.ranks)

    def _choose(self, backend, precision, batch_size, micro_batch_size):
        """Choose threads, backend and precision. Collective."""
        self.n_threads, self._most = self._limit_threads(), micro_batch_size
        self.backend, self.precision = choose_computing(
            self.comm,
            self.parallel,
            self._model,
            self._optimizer,
            backend,
            precision,
            batch_size,
        )

    def _limit_threads(self):
        if self.parallel.n_groups is not None:
            return limit_to_one()
        return self.ranks.use_threads()

    def limit_threads_again(self):
        """Limit threads again, as another Trainer may have changed the limit."""
        if self.parallel.n_groups is not None:
            limit_to_one()

    def _require_noise(self):
        """Raise ConfigError if the gradient's noise is wanted and cannot be had.

        Collective.
        """
        with together(self.everyone):
            if self._noise is not None:
                name = type(self._optimizer).__name__.lower()
                require_noise(self.parallel, name)

    def _require_stable(self, seed, l2, clip_norm):
        """Let the optimizer check its decay. Collective."""
        with together(self.everyone):
            if not isinstance(self._optimizer, LBFGS):
                self._optimizer.require_stable(l2 if clip_norm is None else 0.0)

    def _make_strategy(self, seed, l2, clip_norm):
        """Make the strategy and initialise the parameters. Collective."""
        parallel, model, optimizer = self.parallel, self._model, self._optimizer
        self._l2, ops = l2, self.backend.ops
        roles = make_roles(parallel, self.everyone)
        if roles is not None:
            self._resources.callback(roles.free)
            self.comm = roles.comm
        self.strategy = make_strategy(
            parallel,
            self.comm,
            model,
            None if isinstance(optimizer, LBFGS) else optimizer,
            ops,
            roles=roles,
            precision=self.precision,
        )
        self._resources.callback(self.strategy.free)
        if isinstance(optimizer, LBFGS):
            optimizer.allocate(model.layout)
            self.strategy.minimiser = optimizer
        with together(self.everyone):
            self.strategy.init(model, seed)
        self.strategy.bind(
            model,
            l2=l2,
            clip_norm=clip_norm,
            check_every=parallel.check_every,
            noise=self._noise,
        )
        self.placement = make_placement(
            parallel.n_groups,
            self.comm,
            model,
            ops,
            self._most,
            self.precision.dtype,
            self.strategy,
        )

    def feed(self, dataset):
        """Return a Feed of the dataset; compile the step's functions. Collective."""
        with together(self.comm):
            feed = self.placement.feed(dataset)
            feed.check(self._model)
        self.rehearse(feed)
        self.strategy.expect_sparse(dataset.is_sparse)
        return feed

    def feed_again(self, dataset):
        """Return a Feed of a dataset of `feed` whose rows were moved. Collective."""
        with together(self.comm):
            return self.placement.feed(dataset)

    def rehearse(self, feed):
        """Compile a step's functions and record the model's layer order. Collective."""
        with computing():
            takes = rehearse(
                self.comm,
                self._model,
                self._optimizer,
                self.backend.ops,
                feed,
                self._l2,
                self.precision.dtype,
            )
        self.strategy.expect(takes)

    def free(self):
        """Free everything except the parameters; further calls do nothing."""
        self._resources.close()


def _as_watched(parallel, ranks):
    """Return ``parallel`` with the watchdog's settings of ``ranks``.

    Raises
    ------
    ConfigError
        If ``parallel`` sets different values.
    """
    for name in ("timeout_s", "debug"):
        asked, found = getattr(parallel, name), getattr(ranks, name)
        if asked != found and asked != getattr(Parallel(), name):
            raise ConfigError(
                f"parallel: {name} is {asked!r}, but that of the Ranks is {found!r}: "
                f"set it where they are made, pt.Ranks(comm, {name}=...)"
            )
    return replace(parallel, timeout_s=ranks.timeout_s, debug=ranks.debug)
