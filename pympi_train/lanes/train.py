"""`train_lanes`: many trainings in one pass over the rows."""

from numbers import Integral

import numpy as np

from pympi_train.backends.threads import limit_to_one
from pympi_train.comm.checks import agreed_within, is_agreed, together
from pympi_train.comm.devices import choose_backend
from pympi_train.comm.ranks import ranks_of
from pympi_train.comm.sums.tree import require_leaves
from pympi_train.comm.watch.journal import at_work
from pympi_train.data.feeds.feed import Feed
from pympi_train.data.feeds.group_feed import GroupFeed
from pympi_train.data.groups import own_cuts, regrouped
from pympi_train.data.moving import moved
from pympi_train.errors import ConfigError
from pympi_train.lanes.columns import EXACT_WIDTH
from pympi_train.lanes.descend import Descent
from pympi_train.lanes.evaluate import LaneEvaluator
from pympi_train.lanes.folds import own_folds
from pympi_train.lanes.group import LaneGroup
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.minimise import Minimisation
from pympi_train.lanes.products import KERNELS
from pympi_train.lanes.rescaling import fold_scalings
from pympi_train.lanes.updates import is_supported
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.train.agreement import agree_on_trainer, require_same_ranks

CACHE_BYTES = 2**19  # of features and outputs that are used twice
LEAST_ROWS = 256  # at once: fewer make the products slow
ON_CPUS = "lanes run on CPUs: the GPU backend has no kernels for them"


def train_lanes(
    model,
    optimizer,
    lanes,
    data,
    *,
    folds=None,
    validation=None,
    epochs,
    batch_size=256,
    micro_batch_size=4096,
    seed=0,
    schedule=None,
    clip_norm=None,
    standardise=None,
    backend="auto",
    virtual_shards=None,
    comm=None,
    on_epoch=None,
    should_stop=None,
):
    """Train all of ``lanes`` at once; return a `LaneResult` of each.

    The lanes' parameters stand side by side, so that a batch is read once for all of
    them, and their gradients are summed over the ranks in one call. A lane gives what a
    Trainer gives with the same settings and data, in which the rows of the lane's fold
    have weight 0.

    Parameters
    ----------
    model : Linear, Logistic or Softmax
    optimizer : GD, SGD, Adam, AdamW, AdaGrad or LBFGS
        Its learning rate is not used.
    lanes : sequence of Lane
    data : Source
        All rows; dense or sparse.
    folds : ndarray of int, shape (len(data),), optional
        The fold of each of this rank's rows; -1: of no fold.
    validation : Source, optional
        Validation rows of lanes without a fold.
    epochs : int
        For LBFGS, the maximum number of iterations.
    batch_size, micro_batch_size, seed, schedule, clip_norm
        As for `Trainer`.
    standardise : True or ndarray of bool, shape (d,), optional
        Columns that each lane sees standardised over its own training rows. Best on top
        of a standardisation over all rows, see `Rescaling`.
    backend : "auto", "numpy" or "numba"
    virtual_shards : int, optional
        Number of groups of rows, for exact reduction: a lane then has the same bits on
        any number of ranks, and with any other lanes beside it.
    comm : Ranks or MPI.Comm, optional
    on_epoch : callable, optional
        ``on_epoch(epoch, results)`` after each epoch but the last, on every rank, with
        equal results. It returns the places of lanes to drop, or None; the answer of
        rank 0 counts. Not called with LBFGS.
    should_stop : callable, optional
        ``should_stop() -> bool``, asked on every rank before each step. If it is true
        on any, all lanes end after that step.

    Returns
    -------
    list of LaneResult
        In the order of ``lanes``, equal on every rank.

    Raises
    ------
    ConfigError, DataError, ValueError
        On every rank, before anything is trained.
    RemoteRankError
        If another rank failed; that rank raises its own error.

    Notes
    -----
    Collective.

    A lane whose loss or gradient is not finite ends as "diverged", with the weights
    before that step; the other lanes do not notice.

    Examples
    --------
    >>> import numpy as np, pympi_train as pt
    >>> from pympi_train.lanes.lane import Lane
    >>> x = np.array([[1.0, 2], [2, 3], [3, 4], [4, 5]])
    >>> data = pt.Dataset.split(x, x[:, :1])
    >>> model = pt.Linear(2, intercept=False, dtype="float64")
    >>> lanes = [Lane(rate) for rate in (0.001, 0.01, 1.0)]
    >>> results = train_lanes(model, pt.GD(lr=1), lanes, data, epochs=1000)
    >>> [result.status for result in results]
    ['finished', 'finished', 'diverged']
    >>> results[1].weights["weight"].ravel().round(3)
    array([0.646, 0.264])
    """
    schedule = Constant() if schedule is None else schedule
    ranks, own = ranks_of(comm)
    comm, group = ranks.comm, None
    try:
        with together(comm):
            lanes = _checked(model, optimizer, lanes, data, validation, epochs)
        _agree(comm, model, optimizer, schedule, lanes, locals())
        require_same_ranks(comm, data, validation)
        numbers = own_folds(folds, data, lanes, comm)
        if virtual_shards is None:
            ranks.use_threads()
        else:
            limit_to_one()
            require_leaves(virtual_shards, comm)
        backend = choose_backend(comm, _on_cpus(backend, comm), ON_CPUS)
        with at_work(comm):
            made_of = model, data, numbers, comm, micro_batch_size, virtual_shards
            rows, evaluators = _Rows(*made_of), []
            if any(lane.fold is not None for lane in lanes):
                evaluators.append((_has_fold, rows.evaluator(backend)))
            if validation is not None:
                others = model, validation, None, comm, micro_batch_size, virtual_shards
                evaluators.append((_has_no_fold, _Rows(*others).evaluator(backend)))
            scalings = _scalings(standardise, lanes, rows, comm)
            is_exact = virtual_shards is not None
            most = rows_at_once(model, data, len(lanes), micro_batch_size, is_exact)
            group = LaneGroup(
                model,
                lanes,
                rows.data,
                rows.numbers,
                rows.feed(most),
                evaluators,
                scalings,
                backend,
                comm,
                virtual_shards,
            )
            if isinstance(optimizer, LBFGS):
                Minimisation(group, optimizer, epochs, should_stop).run()
            else:
                Descent(
                    group,
                    optimizer,
                    schedule,
                    batch_size=batch_size,
                    epochs=epochs,
                    seed=seed,
                    clip_norm=clip_norm,
                    on_epoch=on_epoch,
                    should_stop=should_stop,
                ).run()
        return group.results
    except Exception as error:
        if not is_agreed(error, comm):
            own = group = None  # the other ranks may be waiting elsewhere
        raise
    finally:
        if group is not None:
            group.free()
        if own:
            ranks.free()


class _Rows:
    """Rows on the ranks that compute them, their folds, and their batches.

    Attributes
    ----------
    whole : Feed
        Batches of as many rows as allowed, for evaluation.
    """

    def __init__(self, model, data, numbers, comm, most, n_groups):
        self.model, self.comm, self.n_groups = model, comm, n_groups
        self.data, self.numbers, self._cuts = data, numbers, None
        if n_groups is not None:
            self.data = regrouped(data, n_groups, comm)
            self._cuts = own_cuts(self.data.n, n_groups, comm.rank, comm.size)
            if numbers is not None and self.data is not data:
                sources = data, self.data
                old, new = ([*comm.allgather(s.start), s.n] for s in sources)
                self.numbers = moved(numbers, old, new, comm)
        with together(comm):
            self.whole = self.feed(most)
            self.whole.check(model)

    def feed(self, most):
        """Return a Feed of batches of at most ``most`` rows."""
        if self._cuts is None:
            return Feed(self.data, most, self.model.y_dtype)
        return GroupFeed(self.data, self._cuts, most, self.model.y_dtype)

    def evaluator(self, backend):
        """Return the LaneEvaluator of these rows. Collective."""
        made_of = self.model, self.data, self.numbers, self.whole, backend, self.comm
        return LaneEvaluator(*made_of, self.n_groups)


def rows_at_once(model, data, n_lanes, most, is_exact):
    """Return how many rows are run forward and backward before the next are read.

    Features and outputs then stay in cache: with 45 columns, the products of 4096 rows
    of 50 features take one and a half times as long as those of 256. Products with
    sparse rows write all columns each time, so their batches are large.
    """
    if data.is_sparse:
        return most
    width = EXACT_WIDTH if is_exact else n_lanes * model.n_outputs
    row_bytes = (model.n_features + 3 * width) * model.layout.dtype.itemsize
    return min(most, max(LEAST_ROWS, CACHE_BYTES // row_bytes))


def _has_fold(lane):
    return lane.fold is not None


def _has_no_fold(lane):
    return lane.fold is None


def _on_cpus(name, comm):
    if name == "cuda":
        raise agreed_within(comm, ConfigError(ON_CPUS))
    return name


def _checked(model, optimizer, lanes, data, validation, epochs):
    """Return the lanes as a list, or raise ConfigError. Local."""
    lanes = list(lanes)
    if not lanes or not all(isinstance(lane, Lane) for lane in lanes):
        raise ConfigError(f"lanes: expected at least one Lane, got {lanes!r}")
    head = getattr(model, "head", None)
    if not getattr(model, "is_one_product", False) or head.op not in KERNELS:
        raise ConfigError(
            "lanes are for Linear, Logistic and Softmax models, got "
            f"{type(model).__name__}"
        )
    is_lbfgs = isinstance(optimizer, LBFGS)
    if not is_lbfgs and not is_supported(optimizer):
        raise ConfigError(
            "lanes are for GD, SGD, Adam, AdamW, AdaGrad and LBFGS, got "
            f"{type(optimizer).__name__}"
        )
    for lane in lanes:
        if is_lbfgs is (lane.learning_rate is not None):
            expected = "no learning_rate" if is_lbfgs else "a learning_rate"
            raise ConfigError(
                f"{type(optimizer).__name__} needs lanes with {expected}, got {lane}"
            )
    if not isinstance(epochs, Integral) or epochs < 1:
        raise ValueError(f"epochs: expected an integer >= 1, got {epochs!r}")
    return lanes


def _agree(comm, model, optimizer, schedule, lanes, arguments):
    """Raise on all ranks unless they pass the same arguments. Collective."""
    names = ("batch_size", "micro_batch_size", "epochs")
    agree_on_trainer(
        comm,
        model.layout,
        {"optimizer": optimizer, "schedule": schedule},
        {name: arguments[name] for name in names},
        {"seed": arguments["seed"], "l2": 0.0, "clip_norm": arguments["clip_norm"]},
        {
            "lanes": str(lanes),
            "virtual_shards": str(arguments["virtual_shards"]),
            "backend": arguments["backend"],
            "whether there are folds": str(arguments["folds"] is not None),
        },
    )


def _scalings(standardise, lanes, rows, comm):
    """Return the Scaling of each fold that a lane has, or None. Collective."""
    if standardise is None or standardise is False:
        return None
    n_features = rows.model.n_features
    which = np.ones(n_features, bool) if standardise is True else standardise
    with together(comm):
        which = np.asarray(which)
        if which.shape != (n_features,) or which.dtype != bool:
            raise ConfigError(
                f"standardise: expected True or a bool for each of {n_features} "
                f"columns, got {standardise!r}"
            )
    folds = list(dict.fromkeys(lane.fold for lane in lanes))
    made_of = rows.data, rows.numbers, rows.whole, comm, rows.n_groups
    return fold_scalings(folds, which, *made_of)
