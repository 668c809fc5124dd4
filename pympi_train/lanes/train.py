"""`train_lanes`: many trainings in one pass over the rows."""

from numbers import Integral

from pympi_train.backends.threads import limit_to_one
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.devices import choose_backend
from pympi_train.comm.ranks import ranks_of
from pympi_train.comm.sums.tree import require_leaves
from pympi_train.comm.watch.journal import at_work
from pympi_train.errors import ConfigError
from pympi_train.lanes.descend import Descent
from pympi_train.lanes.folds import own_folds
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.minimise import Minimisation
from pympi_train.lanes.products import KERNELS
from pympi_train.lanes.rows import Computing, LaneRows, make_group
from pympi_train.lanes.updates import is_supported
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant
from pympi_train.train.setup.agreement import agree_on_trainer, require_same_ranks

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
    scale=None,
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
    scale : ndarray, shape (d,), optional
        What features were divided by in that standardisation. Sparse columns that are
        constant over the training rows of a lane get their own units back: `load` does
        not scale them either.
    backend : "auto", "numpy" or "numba"
    virtual_shards : int, optional
        Number of groups of rows, for exact reduction: a lane then has the same bits on
        any number of ranks, and with any other lanes beside it.
    comm : Ranks or MPI.Comm, optional
    on_epoch : callable, optional
        ``on_epoch(epoch, results)`` after each epoch but the last, on every rank, with
        equal results; it makes no MPI call. It returns the places of lanes to drop, or
        None; the answer of rank 0 counts. Not called with LBFGS.
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
        lanes = _agree(
            comm,
            model,
            optimizer,
            schedule,
            lanes,
            {
                "batch_size": batch_size,
                "micro_batch_size": micro_batch_size,
                "epochs": epochs,
            },
            {"seed": seed, "clip_norm": clip_norm},
            {
                "backend": backend,
                "virtual_shards": virtual_shards,
                "whether there are folds": folds is not None,
                "whether there are validation rows": validation is not None,
            },
        )
        require_same_ranks(comm, data, validation)
        numbers = own_folds(folds, data, lanes, comm)
        if virtual_shards is None:
            ranks.use_threads()
        else:
            limit_to_one()
            require_leaves(virtual_shards, comm)
        chosen = choose_backend(comm, backend, ON_CPUS)
        how = Computing(chosen, comm, micro_batch_size, virtual_shards)
        with at_work(comm):
            rows = LaneRows(model, data, numbers, how)
            scalings = rows.scalings(standardise, lanes, scale)
            group = make_group(model, lanes, rows, validation, scalings)
            group.rehearse(optimizer)
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


def _agree(comm, model, optimizer, schedule, lanes, counts, numbers, others):
    """Return the lanes as a list if all ranks pass the same arguments. Collective.

    ``counts`` are at least 1, ``others`` further settings.

    Raises
    ------
    ConfigError, ValueError, RankMismatchError
        On every rank.
    """
    with together(comm):
        lanes = _checked(model, optimizer, lanes, counts["epochs"])
        if others["backend"] == "cuda":
            raise ConfigError(ON_CPUS)
    parts = {"optimizer": optimizer, "schedule": schedule}
    names = {"lanes": str(lanes), **{k: str(v) for k, v in others.items()}}
    agree_on_trainer(
        comm, model.layout, parts, counts, {"l2": 0.0, **numbers}, names
    )
    return lanes


def _checked(model, optimizer, lanes, epochs):
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
        raise ConfigError(f"epochs: expected an integer >= 1, got {epochs!r}")
    return lanes
