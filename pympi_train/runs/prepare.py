"""The work before the first step: rows, model, backend and Trainer of a job."""

import dataclasses
from contextlib import contextmanager
from functools import partial

from pympi_train.backends import gpu, select
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import Ranks
from pympi_train.comm.watch import journal
from pympi_train.comm.watch.guard import marker
from pympi_train.config.build import build_model, build_optimizer, build_schedule
from pympi_train.data.loading.load import load
from pympi_train.data.loading.tokens import load_tokens
from pympi_train.parallel.make import make_roles
from pympi_train.runs.startup import StartUp
from pympi_train.train.trainer import Trainer

MAX_OUTPUTS = 2**26  # of a language model for a micro-batch: 256 MiB in float32


@contextmanager
def prepared(config, ranks, load_rows=None):
    """Yield this rank's rows (None on a server), their schema, a Trainer. Collective.

    Does all work of ``config`` before the first step, and writes nothing. Also yields
    the seconds of each part of that work, a dict. ``load_rows(comm)`` returns the rows,
    if they are not to be read from files.
    """
    comm, startup = ranks.comm, StartUp()
    marker(comm)(journal.LOADING)
    data, schema = _read(config, comm, load_rows or partial(rows_of, config))
    startup.lap("data")
    with together(comm):
        model = build_model(config.model, schema)
    backend, why = _backend(config, model, data, comm)
    startup.lap("backend")
    config = with_vocabulary(_with_columns(config, data), schema)
    with _trainer(config, model, backend, ranks) as trainer:
        if why:
            trainer.backend = dataclasses.replace(trainer.backend, reason=why)
        startup.lap("trainer")
        yield data, schema, trainer, startup.seconds


def ranks_of_job(config, comm, on_hang=None):
    """Return the Ranks for ``config``; ``on_hang`` as theirs. Collective."""
    parallel = config.parallel
    how = {"timeout_s": parallel.timeout_s, "debug": parallel.debug}
    return Ranks(comm, **how, outlives=config.elastic.survive, on_hang=on_hang)


def with_vocabulary(config, schema):
    """Return the configuration with the choices made for token files.

    These are the vocabulary, and a micro-batch whose outputs fit into memory.
    """
    if schema.task != "language":
        return config
    n_tokens, t = schema.n_tokens, config.train
    most = max(1, MAX_OUTPUTS // (n_tokens * schema.window))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocabulary=n_tokens),
        train=dataclasses.replace(t, micro_batch_size=min(most, t.micro_batch_size)),
    )


def _read(config, comm, load_rows):
    """Return this rank's rows (None on a server) and their schema. Collective."""
    roles = make_roles(config.parallel, comm)
    if roles is None:
        data = load_rows(comm)
        return data, data.schema
    data = None
    with roles:
        with roles.told():
            if not roles.serves:
                data = load_rows(roles.comm)
        return data, comm.bcast(data and data.schema, root=0)


def rows_of(config, comm, **changes):
    """Return the LoadedData of a configuration. Collective.

    ``changes`` are other arguments of `load`; token files have none of them.
    """
    if config.task == "language":
        return _load_tokens(config, comm)
    return load(**{**load_options(config), **changes}, comm=comm)


def load_options(config):
    """Return the arguments of `load`, but for ``comm``, for a configuration."""
    options = {**vars(config.data), "sparse": config.keeps_sparse}
    options["split"] = config.data.split or "random"
    for name in ("window", "token_dtype"):
        options.pop(name)
    return {
        "path": options.pop("train"),
        **options,
        "task": config.task,
        "class_weights": config.model.class_weights,
        "dtype": config.model.dtype,
        "seed": config.train.seed,
        "virtual_shards": config.parallel.n_groups,
        "literal_paths": True,
    }


def _load_tokens(config, comm):
    c = config.data
    return load_tokens(
        c.train,
        c.window,
        token_dtype=c.token_dtype,
        format=c.format,
        vocabulary=config.model.vocabulary,
        validation=c.validation or None,
        order=c.order,
        order_window=c.order_window,
        order_shards=c.order_shards,
        dtype=config.model.dtype,
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
    is_timed = not is_sparse and config.task != "language"  # on a GPU
    if any(has_gpu) and is_timed and not config.elastic.survive:
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
    n_rows = min(batch_size, n) * getattr(data.train, "window", 1)
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
        gradient_noise=config.train.gradient_noise,
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
