"""A whole training, from configuration to run directory."""

import dataclasses
import time
from contextlib import contextmanager

from pympi_train import errors
from pympi_train.backends import gpu, select
from pympi_train.backends.numerics import numerics
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import Ranks
from pympi_train.comm.watch import journal
from pympi_train.comm.watch.guard import marker
from pympi_train.config.build import build_model, build_optimizer, build_schedule
from pympi_train.data.loading.load import load
from pympi_train.parallel.make import make_roles
from pympi_train.runs import output
from pympi_train.runs.checkpoints import FINISHED, GO_ON, Checkpoints, why_ended
from pympi_train.runs.resume import (
    find,
    fingerprint,
    require_same_data,
    with_choices,
)
from pympi_train.runs.signals import orderly
from pympi_train.runs.startup import StartUp
from pympi_train.train.trainer import Trainer

METRICS = ("loss", "accuracy", "rmse", "r2", "targets")


def train(config, comm, console=None, resume=None, stop=None):
    """Train by ``config``, write a run directory and return a summary.

    Parameters
    ----------
    config : Config
    comm : MPI.Comm
        All its ranks take part.
    console : Console, optional
        Prints progress; on rank 0 only.
    resume : str, optional
        "newest", or the folder of a checkpoint: continue from it. Without a checkpoint
        the training starts afresh; a finished run is left as it is.
    stop : Stop, optional
        Of `signals.orderly`, if signals were handled before this call.

    Returns
    -------
    dict
        ranks, epochs, kept_epoch, ended, largest_gradient (of L-BFGS, max-norm at its
        last iteration), steps, samples_seen, train_loss, validation
        (dict or None), wall_s, samples_per_s, parameters, exchange (dict),
        weights_sha256, directory. Losses and metrics are those of the epoch that was
        kept. Of a training that was interrupted: interrupted (why), step, epoch,
        directory, checkpoint.

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
            return train(config, comm, console, resume, stop)
    with ranks_of_job(config, comm) as ranks:
        found = None
        if resume is not None:
            found, result = find(config, ranks.comm, resume)
            if result is not None:
                if console is not None:
                    console.tell_finished(config, result)
                return result
            if found.saved is not None:
                config = with_choices(config, found, ranks.comm)
        return _train(config, ranks, console, found, stop)


def _train(config, ranks, console, found, stop):
    """`train` on the ranks of a job. Collective."""
    started, comm = time.perf_counter(), ranks.comm
    with prepared(config, ranks) as (data, schema, trainer, startup):
        config = _with_order(config, data)
        about = {} if data is None else {"data": fingerprint(data)}
        records = None if found is None else found.records
        if records is not None and found.saved is not None:
            require_same_data(found, about.get("data"), comm)
            trainer.load_state(found.saved.state)
            about["best"] = found.saved.about.get("best")
        with _directory(_resolved(config, trainer), schema, comm, records) as run:
            if console is not None:
                console.describe(config, data, trainer, startup)
                console.tell_resumed(found, trainer)
            about |= {"ranks": comm.size, "monitor": _monitor(config, data)}
            made_of = trainer, comm, run, about, console
            saver = Checkpoints(config, *made_of)
            saver.stop = stop
            how = console, saver, records or []
            reason, records = _fit(trainer, config, data, run, *how)
            if reason != FINISHED:
                return _interrupted(config, trainer, reason, console, comm)
            if trainer.serves:
                with together(comm):
                    pass  # rank 0 writes weights and result
                return comm.bcast(None, root=0)
            wall_s = time.perf_counter() - started
            weights = trainer.weights()  # collective if weights are sharded
            result = _result(trainer, records, weights, comm, wall_s)
            result["startup_seconds"] = startup
            result["directory"] = config.output.directory
            with together(comm):
                if run is not None:
                    run.save_weights(weights)
                    run.save_config(_resolved(config, trainer))
                    run.finish(result)
            if console is not None:
                console.finish(result, records, run)
            if trainer.comm.size < comm.size:
                comm.bcast(result, root=0)
            return result


@contextmanager
def prepared(config, ranks):
    """Yield this rank's rows (None on a server), their schema, a Trainer. Collective.

    Does all work of ``config`` before the first step, and writes nothing. Also yields
    the seconds of each part of that work, a dict.
    """
    comm, startup = ranks.comm, StartUp()
    marker(comm)(journal.LOADING)
    data, schema = _read(config, comm)
    startup.lap("data")
    with together(comm):
        model = build_model(config.model, schema)
    backend, why = _backend(config, model, data, comm)
    startup.lap("backend")
    config = _with_columns(config, data)
    with _trainer(config, model, backend, ranks) as trainer:
        if why:
            trainer.backend = dataclasses.replace(trainer.backend, reason=why)
        startup.lap("trainer")
        yield data, schema, trainer, startup.seconds


def ranks_of_job(config, comm):
    """Return the Ranks for ``config``. Collective."""
    parallel = config.parallel
    return Ranks(comm, timeout_s=parallel.timeout_s, debug=parallel.debug)


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


@contextmanager
def _directory(config, schema, comm, records):
    """Hold the run directory: yield it on rank 0, None on others. Collective."""
    run = None
    try:
        with together(comm):
            if comm.rank == 0:
                made_of = config.output.directory, config, schema, records
                run = output.RunDirectory(*made_of)
        yield run
    finally:
        if run is not None:
            run.release()


def _interrupted(config, trainer, reason, console, comm):
    """Return what `train` returns for a training that is not finished."""
    told = {
        "interrupted": why_ended(reason),
        "step": trainer.steps,
        "epoch": trainer.epoch,
        "directory": config.output.directory,
        "checkpoints": config.checkpoints,
    }
    if console is not None:
        console.tell_interrupted(told)
    return comm.bcast(told, root=0)


def _monitor(config, data):
    """Return the key of the epochs' records by which a checkpoint is the best."""
    if config.train.monitor != "auto" or data is None:
        return config.train.monitor
    return "train_loss" if data.validation is None else "validation_loss"


def _read(config, comm):
    """Return this rank's rows (None on a server) and their schema. Collective."""
    roles = make_roles(config.parallel, comm)
    if roles is None:
        data = _load(config, comm)
        return data, data.schema
    data = None
    with roles:
        with roles.told():
            if not roles.serves:
                data = _load(config, roles.comm)
        return data, comm.bcast(data and data.schema, root=0)


def _load(config, comm):
    options = {**vars(config.data), "sparse": config.keeps_sparse}
    return load(
        options.pop("train"),
        **options,
        task=config.task,
        class_weights=config.model.class_weights,
        dtype=config.model.dtype,
        seed=config.train.seed,
        virtual_shards=config.parallel.n_groups,
        literal_paths=True,
        comm=comm,
    )


def _backend(config, model, data, comm):
    """Return the backend to request, and the reason if it is not the configured one.

    "auto" does not use Numba if NumPy is faster including start-up. Collective.
    """
    name = config.train.backend
    if name != "auto" or config.parallel.strategy == "server":  # servers have no rows
        return name, None
    there = comm.allgather((gpu.is_installed(), select.is_installed()))
    has_gpu, has_numba = zip(*there)
    is_sparse = data.train.is_sparse
    if any(has_gpu) and not is_sparse:
        return name, None
    if any(has_gpu):
        name = "numba" if all(has_numba) else "numpy"
    if not all(has_numba):
        return name, None
    n, batch_size = data.train.n, config.train.batch_size
    if build_optimizer(config.optimizer).full_batch:
        batch_size = n
    n_steps = config.train.epochs * -(-n // batch_size)
    # From the rows of all ranks: the choice affects bits, which must not depend on P.
    n_entries = 0
    if is_sparse:
        n_entries = int(reduced(comm, [data.train.x.n_entries])[0] * batch_size / n)
    n_rows = min(batch_size, n)
    saved_s = select.seconds_saved(n_steps, model.layout, n_rows, n_entries)
    if saved_s > select.START_S:
        return name, None
    return "numpy", (
        f"starting Numba takes a second, more than it saves in {n_steps} small steps"
    )


def _trainer(config, model, backend, ranks):
    return Trainer(
        model,
        build_optimizer(config.optimizer),
        batch_size=config.train.batch_size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
        l2=config.model.l2,
        schedule=build_schedule(config.optimizer),
        clip_norm=config.optimizer.clip_norm,
        backend=backend,
        precision=config.train.precision,
        parallel=config.parallel,
        comm=ranks,
    )


def _with_columns(config, data):
    """Return ``config`` with strategy "auto" replaced where columns can be sent alone.

    Only allreduce sends the columns that occur in a batch of sparse rows.
    """
    parallel = config.parallel
    is_open = parallel.strategy == "auto" and parallel.reduction == "fast"
    if not is_open or parallel.compression != "none" or not data.train.is_sparse:
        return config
    optimizer = build_optimizer(config.optimizer)
    if config.model.l2 or not getattr(optimizer, "is_lazy", False):
        return config
    changes = {"strategy": "allreduce"}
    if parallel.overlap == "auto":
        changes["overlap"] = "off"  # a single layer
    parallel = dataclasses.replace(parallel, **changes)
    return dataclasses.replace(config, parallel=parallel)


def _fit(trainer, config, data, run, console, saver, records):
    """Train with pauses for checkpoints; return why it ended and all records.

    Collective.
    """
    def on_epoch(record):
        with together(trainer.comm):  # all ranks raise if the disk is full
            if run is not None:
                run.add_record(record)
        if console is not None:
            console.epoch(record)
        saver.on_step()  # for L-BFGS, whose iterations are epochs

    def on_step(*at):
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
            on_epoch=on_epoch,
            on_step=on_step,
        )

    try:
        with saver.stop.during(trainer.request_stop):
            while True:
                records = records + fit()
                reason = saver.meet(records)
                if reason != GO_ON:
                    return reason, records
    except errors.DivergenceError as error:
        saver.close()
        if trainer.serves:
            raise
        weights = trainer.weights()
        with together(trainer.comm):
            if run is not None:
                run.save_weights(weights)
        # ``error`` stays marked as raised by every rank.
        error.args = (
            f"{error} (the weights of step {trainer.steps} are in "
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
    told = {}
    if "largest_gradient" in records[-1]:
        told["largest_gradient"] = records[-1]["largest_gradient"]
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
        "weights_sha256": output.weights_sha256(weights),
    }
