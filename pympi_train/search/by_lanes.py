"""All trials and folds of a linear model in one pass over the rows, as lanes."""

from contextlib import nullcontext
from typing import NamedTuple

from pympi_train.comm.checks import together
from pympi_train.config.build import build_model, build_optimizer, build_schedule
from pympi_train.data.loading.load import load
from pympi_train.data.loading.options import ALL_FOLDS
from pympi_train.errors import ConfigError
from pympi_train.lanes import lane as lanes
from pympi_train.lanes.applies import why_not_lanes
from pympi_train.lanes.train import train_lanes
from pympi_train.runs.output import finite
from pympi_train.runs.prepare import load_options, ranks_of_job
from pympi_train.search.plan import METRIC_KEYS
from pympi_train.search.results.summary import DIVERGED, FINISHED, TrialResult
from pympi_train.search.rungs import survivors

SEARCHED = ("optimizer.learning_rate", "model.l2")
METHODS = ("grid", "random", "halving")
MAX_BYTES = 2**28  # of the parameters of lanes that are trained at once, on a rank


class LaneChoice(NamedTuple):
    """Whether trials are trained as lanes, and why."""

    is_used: bool
    why: str


def choose_lanes(plan):
    """Return the LaneChoice of a SearchPlan.

    Raises
    ------
    ConfigError
        If lanes are asked for and do not apply.
    """
    asked = plan.settings.lanes
    if asked == "off":
        return LaneChoice(False, "lanes are off")
    reason = _why_not(plan)
    if reason is None:
        return LaneChoice(True, "all trials and folds in one pass over the rows")
    if asked == "on":
        raise ConfigError(f"--lanes on: {reason}")
    return LaneChoice(False, f"no lanes: {reason}")


def _why_not(plan):
    """Return why lanes do not apply to a SearchPlan, or None if they do."""
    settings, config = plan.settings, plan.first.config
    if settings.method not in METHODS:
        return f"method {settings.method} chooses trials by results"
    for parameter in plan.space:
        if parameter.key not in SEARCHED:
            return f"{parameter.key} is searched, which lanes share"
    if config.optimizer.name == "lbfgs" and len(plan.rungs) > 1:
        return "lbfgs in lanes is measured at its end only, not on each rung"
    if len(plan.rungs) > 1 and plan.begins_anew(config):
        return "each rung has a schedule of its own"
    if config.parallel.n_groups is None and config.elastic.balance:
        return "[elastic] balance moves rows"
    return why_not_lanes(config, folds=plan.n_folds if plan.n_folds > 1 else None)


def missing_lanes(plan, log):
    """Return (number, fold) of the trainings that a TrialLog lacks, in their order.

    With halving all or none, since trials are compared on each rung.
    """
    every = [(trial, fold) for trial in plan.trials for fold in range(plan.n_folds)]
    if len(plan.rungs) > 1:
        lacks = [] if _knows_halving(plan, log) else every
    else:
        lacks = [
            (trial, fold)
            for trial, fold in every
            if log.find(trial, fold, trial.config.train.epochs) is None
        ]
    return [(trial.number, fold) for trial, fold in lacks]


def _knows_halving(plan, log):
    """Return whether a log has each rung of the trials that reach it."""
    left = plan.trials
    for epochs in plan.rungs:
        costs = {}
        for trial in left:
            records = [log.find(trial, fold, epochs) for fold in range(plan.n_folds)]
            if None in records:
                return False
            metrics = [record["validation"] or {} for record in records]
            scores = [found.get(plan.settings.metric) for found in metrics]
            costs[trial.number] = _cost(scores, plan)
        stay = survivors(costs)
        left = [trial for trial in left if trial.number in stay]
    return True


def train_as_lanes(plan, todo, comm, stop=None):
    """Train all folds of trials as lanes; return their records, for a TrialLog.

    Parameters
    ----------
    plan : SearchPlan
    todo : list of (int, int)
        Number of the trial, and fold, of each training; equal on every rank.
    comm : MPI.Comm
    stop : Stop, optional
        What signals have asked for.

    Returns
    -------
    list of dict
        Equal on every rank. With halving, one for each rung of a trial.
    bool
        Whether a signal has ended it before its end.

    Notes
    -----
    Collective.
    """
    config = plan.job_config(plan.first, 0)
    asks = None if stop is None else (lambda: bool(stop.signal))
    signals = nullcontext() if stop is None else stop.during(lambda: None)
    found, is_stopped = [], False
    with signals, ranks_of_job(config, comm) as ranks:
        data = _load_rows(config, plan, ranks.comm)
        with together(ranks.comm):
            model = build_model(config.model, data.schema)
        for part in _parts(plan, todo, model):
            lots = [_lane(plan.trials[number], fold, plan) for number, fold in part]
            results = train_lanes(
                model,
                build_optimizer(config.optimizer),
                lots,
                data.train,
                **_settings(config, data),
                on_epoch=_Dropping(plan, part) if len(plan.rungs) > 1 else None,
                should_stop=asks,
                comm=ranks,
            )
            if any(result.status == lanes.STOPPED for result in results):
                is_stopped = True
                break
            for (number, fold), result in zip(part, results):
                trial = plan.trials[number]
                found += _records(plan, trial, fold, result)
    return found, is_stopped


def _load_rows(config, plan, comm):
    """Return the rows, and their folds if there are any. Collective."""
    options = load_options(config)
    if plan.n_folds > 1:
        options["fold"] = ALL_FOLDS
    return load(**options, comm=comm)


def _settings(config, data):
    """Return the arguments of `train_lanes` that a configuration determines."""
    t, preparation = config.train, data.schema.preparation
    own = data.folds is not None and config.data.standardize
    return {
        "folds": data.folds,
        "validation": data.validation,
        "epochs": t.epochs,
        "batch_size": t.batch_size,
        "micro_batch_size": t.micro_batch_size,
        "seed": t.seed,
        "schedule": build_schedule(config.optimizer),
        "clip_norm": config.optimizer.clip_norm,
        "standardise": preparation.scaled_columns if own else None,
        "scale": preparation.scaling.scale if own and data.train.is_sparse else None,
        "backend": t.backend,
        "virtual_shards": config.parallel.n_groups,
    }


def _parts(plan, todo, model):
    """Yield the trainings of ``todo``, as many at a time as memory allows.

    With halving all at once, since trials are compared on each rung.
    """
    if len(plan.rungs) > 1:
        most = len(todo)
    else:
        lane_bytes = model.layout.size * model.layout.dtype.itemsize
        most = max(1, MAX_BYTES // lane_bytes)
    for start in range(0, len(todo), most):
        yield todo[start : start + most]


def _lane(trial, fold, plan):
    c = trial.config
    rate = None if c.optimizer.name == "lbfgs" else c.optimizer.learning_rate
    return lanes.Lane(rate, c.model.l2, fold if plan.n_folds > 1 else None)


class _Dropping:
    """Drops the lanes of trials that do not go on to the next rung."""

    def __init__(self, plan, part):
        self._plan, self._part = plan, part
        self._left = {number for number, _ in part}

    def __call__(self, epoch, results):
        plan = self._plan
        if epoch not in plan.rungs[:-1]:
            return None
        scores: dict = {number: [] for number in sorted(self._left)}
        for (number, _), result in zip(self._part, results):
            if number in scores:
                is_whole = result.status == lanes.TRAINING
                record = result.records[-1] if is_whole else {}
                scores[number].append(record.get(plan.metric_key))
        stay = survivors({n: _cost(of, plan) for n, of in scores.items()})
        self._left = {*stay}
        return [
            place
            for place, (number, _) in enumerate(self._part)
            if number not in self._left and results[place].status == lanes.TRAINING
        ]


def _cost(scores, plan):
    """Return the mean of the folds as a value to minimise; as TrialResult.cost."""
    result = TrialResult(0, (), {}, 0, 0, finite(scores), FINISHED)
    return result.cost(plan.settings.metric)


def _records(plan, trial, fold, result):
    """Yield the records of a lane for the log: one for each rung that it reached."""
    halves = len(plan.rungs) > 1
    epochs = trial.config.train.epochs
    for rung in plan.rungs if halves else [epochs]:
        record = {"set": list(trial.texts), "fold": fold, "epochs": rung}
        n_done = len(result.records)
        if result.status == lanes.FINISHED and not halves:
            at = result.records[-1]  # lbfgs may end early
        elif rung <= n_done:
            at = result.records[rung - 1]
        elif result.status == lanes.DIVERGED:
            at = f"fold {fold}: " if plan.n_folds > 1 else ""
            error = at + result.message
            none = {"validation": None, "kept_epoch": None}
            yield {**record, "status": DIVERGED, **none, "error": error}
            return
        else:  # dropped
            return
        metrics = {name: at[key] for name, key in METRIC_KEYS.items() if key in at}
        record |= {"status": FINISHED, "validation": finite(metrics)}
        yield {**record, "kept_epoch": at["epoch"], "error": None}
