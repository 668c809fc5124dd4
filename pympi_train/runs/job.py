"""A whole training, from configuration to run directory."""

import dataclasses
import time
from functools import partial

from pympi_train import errors
from pympi_train.backends.numerics import numerics
from pympi_train.comm.checks import together
from pympi_train.runs import output
from pympi_train.runs.earlier.start import start_from_init
from pympi_train.runs.elastic.course import Course, n_active_at_first
from pympi_train.runs.elastic.crew import Crew
from pympi_train.runs.elastic.rows import on_ranks
from pympi_train.runs.prepare import prepared, ranks_of_job, with_vocabulary
from pympi_train.runs.recovery.attempt import Attempt
from pympi_train.runs.recovery.checkpoints import (
    FINISHED,
    GO_ON,
    RESIZED,
    Checkpoints,
    why_ended,
)
from pympi_train.runs.recovery.resume import ending, find, with_choices
from pympi_train.runs.recovery.same_data import fingerprint, require_same_data
from pympi_train.runs.recovery.signals import orderly
from pympi_train.runs.tracing import traced
from pympi_train.train.stopping import choose_monitor, when_reached

METRICS = ("loss", "accuracy", "perplexity", "rmse", "r2", "targets")


def train(config, comm, console=None, resume=None, stop=None, attempt=None):
    """Train by ``config``, write a run directory and return a summary.

    Parameters
    ----------
    config : Config
    comm : MPI.Comm
        All its ranks take part.
    console : Console, optional
        Prints progress; on rank 0 only.
    resume : str or ResumePoint, optional
        "newest", or the folder of a checkpoint: continue from it. Without a checkpoint
        the training starts afresh; a finished run is left as it is.
    stop : Stop, optional
        Of `signals.orderly`, if signals were handled before this call.
    attempt : Attempt, optional
        Is told how far the training has come.

    Returns
    -------
    dict
        ranks, epochs, kept_epoch, ended, largest_gradient (of L-BFGS, max-norm at its
        last iteration), gradient_noise (of the last epoch), steps, samples_seen,
        train_loss, validation (dict or None), reached (of a target: dict or None),
        wall_s, samples_per_s, parameters, exchange (dict),
        weights_sha256, directory. Losses and metrics are those of the epoch that was
        kept. Of a training that was interrupted: interrupted (why), step, epoch,
        new_steps (since this start), directory, checkpoints.

    Raises
    ------
    ConfigError, DataError
        On every rank, before anything is written.
    DivergenceError
        On every rank, after the last good weights were saved.

    Notes
    -----
    Collective.
    """
    if stop is None:
        with orderly() as stop:
            return train(config, comm, console, resume, stop, attempt)
    with ranks_of_job(config, comm) as everyone:
        n_active = n_active_at_first(config, everyone.comm)
        with Crew(everyone, n_active, stop) as crew:
            with Course(config, crew, console, resume) as course:
                course.stop, course.attempt = stop, attempt or Attempt()
                return complete(course)


def complete(course):
    """Train by a `Course` to the end; return what `train` returns. Collective."""
    return course.complete(partial(_train, course))


def _train(course, ranks, found):
    """Train on the active ranks, until the training ends or the ranks change.

    ``found`` says from where they go on if other ranks have begun. Returns the result;
    None if the ranks change. Collective.
    """
    config, console, comm = course.config, course.console, ranks.comm
    if found is None and course.resume is not None:
        found, result = find(config, comm, course.resume)
        if result is not None:
            if console is not None:
                console.tell_finished(config, result)
            return result
    if found is not None and found.saved is not None:
        config = with_choices(config, found, comm)
    load = None if course.data is None else partial(on_ranks, course.data)
    with prepared(config, ranks, load) as (data, schema, trainer, startup):
        config = with_vocabulary(_with_order(config, data), schema)
        about = {} if data is None else {"data": fingerprint(data)}
        records, told, over = None if found is None else found.records, [], None
        if found is None or found.saved is None:
            told = start_from_init(config, trainer, comm)
        else:
            require_same_data(found, about.get("data"), comm)
            trainer.load_state(found.saved.state)
            with together(comm):
                over = ending(found, config)
            about["best"] = found.saved.about.get("best")
            about["damaged"] = found.damaged
        resolved, is_first = _resolved(config, trainer), course.saver is None
        if is_first:
            course.first_step = trainer.steps
        run = _run_directory(course, resolved, schema, comm, records)
        if console is not None and is_first:
            console.describe(config, data, trainer, startup)
            console.tell_start(told)
            console.tell_resumed(found, trainer)
        about |= {"ranks": comm.size, "monitor": _monitor(config, data, comm)}
        saver = Checkpoints(config, trainer, comm, run, about, console)
        course.begin(saver, trainer, startup)
        course.attempt.begin(trainer, saver, resolved, about, records or [])
        if over is None:
            with traced(config, comm, trainer, run, console):
                reason, records = _fit(course, trainer, config, data, records or [])
        else:  # its result is missing, and nothing else
            reason, (trainer.ended, trainer.kept) = FINISHED, over
        if reason == RESIZED:
            told = {"config": resolved, "records": records, "about": about}
            course.hand_over(trainer, data, saver.n_wanted, told)
            return None
        if reason != FINISHED:
            return _interrupted(course, config, trainer, reason, comm)
        return _finished(course, config, trainer, records, comm)


def _run_directory(course, config, schema, comm, records):
    """Return the run directory on rank 0, None on others. Collective."""
    with together(comm):
        if comm.rank == 0 and course.run is None:
            made_of = config.output.directory, config, schema, records
            course.run = output.RunDirectory(*made_of)
        elif comm.rank == 0:
            course.run.save_config(config)
    return course.run


def _finished(course, config, trainer, records, comm):
    """Write weights and result; return what `train` returns. Collective."""
    if trainer.serves:
        with together(comm):
            pass  # rank 0 writes weights and result
        return comm.bcast(None, root=0)
    run = course.run
    wall_s = time.perf_counter() - course.began_s
    weights = trainer.weights()  # collective if weights are sharded
    result = _result(trainer, records, weights, comm, wall_s)
    if config.train.target is not None:
        monitor = choose_monitor(
            config.train.monitor, config.task, result["validation"] is not None
        )
        result["reached"] = when_reached(records, monitor, config.train.target)
    result["startup_seconds"] = course.startup
    result["directory"] = config.output.directory
    with together(comm):
        if run is not None:
            run.save_weights(weights)
            run.save_config(_resolved(config, trainer))
            run.finish(result)
    if course.console is not None:
        course.console.finish(result, records, run)
    if trainer.comm.size < comm.size:
        comm.bcast(result, root=0)
    return result


def _with_order(config, data):
    """Return the configuration with the order that the training rows have."""
    if data is None or data.train.order is None:
        return config
    order = data.train.order
    chosen = {"order_shards": order.n_shards, "order_window": order.window_rows}
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, **chosen)
    )


def _resolved(config, trainer):
    """Return the configuration with each "auto" replaced by the choice made."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, backend=trainer.backend.name),
        parallel=trainer.resolved,
    )


def _interrupted(course, config, trainer, reason, comm):
    """Return what `train` returns for a training that is not finished."""
    told = {
        "interrupted": why_ended(reason),
        "step": trainer.steps,
        "epoch": trainer.epoch,
        "new_steps": trainer.steps - course.first_step,
        "directory": config.output.directory,
        "checkpoints": config.checkpoints,
    }
    if course.console is not None:
        course.console.tell_interrupted(told)
    return comm.bcast(told, root=0)


def _monitor(config, data, comm):
    """Return the key of the epochs' records by which a checkpoint is the best.

    Rank 0's counts: a server has no rows, and returns None. Collective.
    """
    with together(comm):
        if data is None:
            return None
        has_validation = data.validation is not None
        return choose_monitor(config.train.monitor, config.task, has_validation)


def _fit(course, trainer, config, data, records):
    """Train with pauses for checkpoints; return why it ended and all records.

    Collective.
    """
    run, console, saver = course.run, course.console, course.saver
    attempt = course.attempt

    def on_epoch(record):
        attempt.add_record(record)
        with together(trainer.comm):  # all ranks raise if the disk is full
            if run is not None:
                run.add_record(record)
        if console is not None:
            console.epoch(record)
        saver.on_step()  # for L-BFGS, whose iterations are epochs

    def on_step(*at):
        attempt.add_step()
        if console is not None:
            console.step(*at, trainer.progress.recent_loss)
        saver.on_step()

    def fit():
        if trainer.serves:
            return trainer.fit(None, epochs=config.train.epochs)
        saver.begin()
        return trainer.fit(
            data.train,
            data.validation,
            epochs=config.train.epochs - trainer.epoch,
            patience=config.train.patience,
            monitor=config.train.monitor,
            target=config.train.target,
            balance=config.elastic.balance,
            on_epoch=on_epoch,
            on_step=on_step,
        )

    try:
        with saver.stop.during(partial(trainer.request_stop, at_once=True)):
            while True:
                began_s = time.perf_counter()
                records = records + fit()
                course.add_training(time.perf_counter() - began_s)
                with trainer.strategy.traced("checkpoint"):
                    reason = saver.meet(records)
                if reason != GO_ON:
                    return reason, records
    except Exception as error:
        saver.close(error)
        if trainer.serves or not isinstance(error, errors.DivergenceError):
            raise
        weights = trainer.weights()
        with together(trainer.comm):
            if run is not None:
                run.save_weights(weights)
        # ``error`` stays marked as raised by every rank.
        error.args = (
            f"{error} ({output.LAST_WEIGHTS} {trainer.steps} are in "
            f"{config.output.directory}/{output.WEIGHTS})",
        )
        raise


def _result(trainer, records, weights, comm, wall_s):
    kept = trainer.kept
    validation = None
    if "validation_loss" in kept:
        validation = {
            name: kept["validation_loss" if name == "loss" else name]
            for name in METRICS
            if name == "loss" or name in kept
        }
    train_s = sum(record["wall_s"] for record in records)
    everyones = trainer.comm.allgather(numerics(trainer.backend.ops.ON_DEVICE))
    names = ("largest_gradient", "gradient_noise")
    told = {name: records[-1][name] for name in names if name in records[-1]}
    return {
        "ranks": comm.size,
        "epochs": len(records),
        "kept_epoch": kept["epoch"],
        "ended": trainer.ended,
        **told,
        "steps": trainer.steps,
        "samples_seen": trainer.samples,
        "train_loss": kept["train_loss"],
        "validation": validation,
        "wall_s": wall_s,
        "samples_per_s": trainer.samples / train_s,
        "parameters": trainer.model.layout.n_parameters,
        "exchange": trainer.exchange,
        "numerics": {
            **everyones[0],
            "same_on_all_ranks": all(found == everyones[0] for found in everyones),
        },
        "weights_sha256": output.weights_sha256(weights.values()),
    }
