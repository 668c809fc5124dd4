"""A whole search, from configuration to its files."""

import os

from pympi_train.comm.checks import raise_together, together
from pympi_train.comm.ranks import require_reachable
from pympi_train.errors import ConfigError, JobError, UserError
from pympi_train.pool.history import FAILED
from pympi_train.pool.machine import machine_of
from pympi_train.pool.pool import Pool
from pympi_train.pool.room import Needs, require_room
from pympi_train.runs.elastic.requests import Bounds
from pympi_train.runs.recovery.resume import is_same
from pympi_train.runs.speech import counted
from pympi_train.search.by_lanes import choose_lanes, missing_lanes, train_as_lanes
from pympi_train.search.evaluation import Evaluation, Interrupted, config_of_run
from pympi_train.search.folds import checked_rows
from pympi_train.search.methods import run_method
from pympi_train.search.plan import BEST, SearchPlan
from pympi_train.search.results.files import (
    BEST_TOML,
    CSV,
    JSON,
    best_line,
    summary_of,
    table_of,
    write_files,
)
from pympi_train.search.results.log import POOL, TrialLog
from pympi_train.search.results.summary import best_of


def search(
    configure, comm, *, settings=None, console=None, resume=False, stop=None
):
    """Train trials, choose the best, write the results and return them.

    Parameters
    ----------
    configure : callable
        ``configure(trial=texts)`` returns the Config with these overrides, as
        `config.parse` does; ``configure()`` that of the file.
    comm : MPI.Comm
        All its ranks take part.
    settings : SearchConfig, optional
        In place of the section ``[search]``.
    console : Console, optional
        Prints progress; on rank 0 only.
    resume : bool
        Whether to use the results of an earlier search in the directory.
    stop : Stop, optional
        Of `signals.orderly`, if signals were handled before this call.

    Returns
    -------
    dict
        The content of search.json, and directory; refit, the result of the training on
        all rows, if there was one. Of a search that was interrupted: interrupted (why)
        and directory. None on ranks other than 0 if some hang in a trial given up.

    Raises
    ------
    ConfigError, DataError
        On every rank, before anything is written; or if no trial has a score.

    Notes
    -----
    Collective.
    """
    require_reachable(comm)
    with together(comm):
        plan = SearchPlan(configure, settings)
        for trial in plan.of_other_ranks:
            _require_ranks(plan, trial, comm.size)
        lanes = choose_lanes(plan)
    if plan.uses_gpus:
        _require_gpus(plan, comm)
    rows = checked_rows(plan, comm)
    say = (lambda text: None) if console is None else console.say
    with together(comm):
        log = TrialLog(plan, resume, lanes, rows) if comm.rank == 0 else None
    try:
        lanes = comm.bcast(log and log.lanes, root=0)
        say(describe_plan(plan, lanes))
        if lanes.is_used and _train_lanes(plan, log, comm, stop):
            return _interrupted(plan, "a signal", say)
        return _search_in_pool(plan, log, comm, say, resume, stop)
    finally:
        if log is not None:
            log.close()


def _train_lanes(plan, log, comm, stop):
    """Train what the log lacks; return whether a signal has ended it. Collective."""
    todo = comm.bcast(log and missing_lanes(plan, log), root=0)
    if not todo:
        return False
    records, is_stopped = train_as_lanes(plan, todo, comm, stop)
    with together(comm):
        if log is not None:
            log.add_all(records)
    return is_stopped


def _search_in_pool(plan, log, comm, say, resume, stop):
    """Train in a pool what the log lacks; return what `search` returns. Collective."""
    found, error = None, None
    directory = os.path.join(plan.directory, POOL)
    pool = Pool(comm, directory=directory, resume=resume, stop=stop)
    try:
        with pool as shared:
            if shared is not None:
                found = _search(Evaluation(plan, shared, log, say), say)
    except Exception as caught:
        error = caught
    if pool.has_lost:
        if error is not None:
            raise error
        return found
    raise_together(comm, error)
    return comm.bcast(found, root=0)


def _require_ranks(plan, trial, n_ranks):
    """Raise ConfigError if a trial cannot run on so many ranks."""
    asked = plan.settings.min_ranks
    bounds = Bounds.of(plan.job_config(trial, 0), n_ranks)
    least, why = bounds.least, bounds.why
    if asked > least:
        least, why = asked, "[search] min_ranks"
    if least > bounds.most:
        raise ConfigError(
            f"a training needs at least {least} ranks ({why}), but can have "
            f"{bounds.most}: start more ranks, or lower it"
        )


def _require_gpus(plan, comm):
    """Raise ConfigError if there are no GPUs for a trial. Collective."""
    machine, least = machine_of(comm), plan.settings.min_ranks
    with together(comm):
        require_room(machine, Needs(least, least, gpus=1), "with backend cuda")


def _search(evaluation, say):
    """Run the search on rank 0; return its result."""
    plan = evaluation.plan
    try:
        run_method(evaluation)
        found, best = _conclude(evaluation, say)
        if plan.settings.refit:
            found["refit"] = _refit(evaluation, best, say)
    except Interrupted as error:
        return _interrupted(plan, str(error), say)
    return found


def _interrupted(plan, why, say):
    say(f"ended    {why}: the same command with --resume goes on")
    return {"interrupted": why, "directory": plan.directory}


def describe_plan(plan, lanes):
    """Return the lines that are printed of a search before it begins."""
    s = plan.settings
    n = s.trials if plan.trials is None else len(plan.trials)
    text = f"search   {s.method}: {counted(n, 'trial')}"
    text += f" x {plan.n_folds} folds" if plan.n_folds > 1 else ""
    text += f", rungs of {', '.join(map(str, plan.rungs))} epochs" * (
        len(plan.rungs) > 1
    )
    text += f"; {s.metric} of the held-out rows"
    return f"{text}\nlanes    {lanes.why}"


def _conclude(evaluation, say):
    """Write the files of all results; return the summary and the best result."""
    plan, found = evaluation.plan, evaluation.results
    results = [found[number] for number in sorted(found)]
    best = best_of(results, plan.settings.metric, plan.settings.one_se)
    summary = summary_of(plan, results, best, evaluation.lanes)
    write_files(plan, results, best, summary)
    say("")
    for line in table_of(plan, results):
        say(line)
    say("")
    files = [JSON, CSV]
    if best is None:
        raise UserError(
            f"none of the {len(results)} trials has a score; {plan.directory} has "
            f"{', '.join(files)}; trial {results[0].number}: {results[0].error}"
        )
    say(best_line(plan, best))
    files += [BEST_TOML, _picture(plan, results, best)]
    say(f"written  {plan.directory}: {', '.join(files)}")
    return {**summary, "directory": plan.directory}, best


def _picture(plan, results, best):
    """Draw the picture; return its name, or why it was not drawn."""
    from pympi_train.search.results.files import PICTURE
    from pympi_train.search.results.picture import draw_search

    try:
        draw_search(plan, results, best)
    except UserError as error:  # not fatal: the results are complete
        return f"({error})"
    except Exception as error:  # of matplotlib, for scores near the largest float
        return f"({PICTURE} is not drawn: {error})"
    return PICTURE


def _refit(evaluation, best, say):
    """Train the best trial on all rows; return the result."""
    plan = evaluation.plan
    trial, epochs = plan.trials[best.number], refit_epochs(plan, best)
    config = plan.refit_config(trial, epochs)
    folder = config.output.directory
    name = f"{BEST}.{trial.name}.epochs-{epochs}"
    future = evaluation.train(config, name, resume=_has_run(config))
    try:
        result = future.result()
    except JobError as error:
        if future.status != FAILED:
            raise Interrupted("the pool was interrupted") from error
        raise
    say(f"refit    {counted(epochs, 'epoch')} on all rows: {folder}")
    return result


def _has_run(config):
    """Return whether the run directory of ``config`` has a run with its settings.

    It has one with others if another trial was the best one meanwhile, or other keys
    were searched.
    """
    before = config_of_run(config.output.directory)
    return before is not None and is_same(config, before)


def refit_epochs(plan, best):
    """Return the number of epochs to train the best trial on all rows.

    With patience or a target there is no row to stop by: the mean of the epochs that
    were kept in the folds.
    """
    config = plan.trials[best.number].config
    if config.train.patience is None and config.train.target is None:
        return config.train.epochs
    return max(1, round(sum(best.kept_epochs) / len(best.kept_epochs)))
