"""Time of a training step, in total and by phase."""

import statistics
from contextlib import contextmanager
from functools import partial

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.config.config import parse
from pympi_train.data.sources.dataset import Dataset
from pympi_train.errors import ConfigError
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.softmax import Softmax
from pympi_train.optim.adam import Adam, AdamW
from pympi_train.optim.sgd import GD, SGD
from pympi_train.train.trainer import Trainer

OPTIMIZERS = {"gd": GD, "sgd": SGD, "adam": Adam, "adamw": AdamW}
PHASES = ("compute", "communication", "update")


def measure(
    comm,
    *,
    model,
    layers,
    batch_size,
    optimizer="adam",
    steps=100,
    backend="auto",
    parallel=(),
):
    """Time steps of the real training loop on one batch of random rows.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that train together.
    model : {"linear", "logistic", "softmax", "mlp"}
    layers : sequence of int
        Number of features, hidden widths (mlp only), number of outputs.
    batch_size : int
        Rows *per rank*. They stay in memory, so input takes no time.
    optimizer : {"gd", "sgd", "adam", "adamw"}
    steps : int
        Number of timed steps. Warm-up steps come first: a tenth as many, or more
        until the exchange has been chosen.
    backend : str
        As for ``Trainer``.
    parallel : sequence of str
        ``key=value`` settings of ``[parallel]``.

    Returns
    -------
    dict
        ``median_step_s``: median over the steps of the slowest rank's seconds.
        ``mean_step_s``: mean over steps and ranks, and its parts ``compute_s``,
        ``communication_s`` and ``update_s``. Communication includes waiting for the
        slowest rank, and excludes what overlaps with computation.
        ``samples_per_s``: rows of all ranks over ``median_step_s``. ``exchange``: the
        chosen exchange, as in result.json. Also the arguments but ``parallel``, and
        ``n_threads``, ``ranks`` and ``parameters``.

    Raises
    ------
    ConfigError
        If ``layers`` does not fit ``model``, or a setting in ``parallel`` is refused.

    Notes
    -----
    Collective.
    """
    with random_training(
        comm,
        model=model,
        layers=layers,
        batch_size=batch_size,
        optimizer=optimizer,
        backend=backend,
        parallel=parallel,
    ) as (trainer, step):
        chosen, n_threads = trainer.backend.name, trainer.n_threads
        n_parameters = trainer.model.layout.n_parameters
        seconds, laps = _time(trainer, step, steps)
        slowest = reduced(trainer.comm, seconds, op="MAX")
        sums = reduced(trainer.comm, [sum(seconds), *(laps[p] for p in PHASES)])
        mean, *phases = (sums / comm.size / steps).tolist()
        exchange = trainer.exchange
    median = statistics.median(slowest.tolist())
    return {
        "model": model,
        "layers": list(layers),
        "optimizer": optimizer,
        "backend": chosen,
        "n_threads": n_threads,
        "ranks": comm.size,
        "batch_size": batch_size,
        "steps": steps,
        "parameters": n_parameters,
        "median_step_s": median,
        "mean_step_s": mean,
        **{f"{p}_s": s for p, s in zip(PHASES, phases)},
        "samples_per_s": batch_size * comm.size / median,
        "exchange": exchange,
    }


@contextmanager
def random_training(
    comm, *, model, layers, batch_size, optimizer="adam", backend="auto", parallel=()
):
    """Yield (trainer, step) of a training on one batch of random rows a rank.

    Parameters
    ----------
    comm, model, layers, batch_size, optimizer, backend, parallel
        As for `measure`.

    Notes
    -----
    Collective.
    ``step`` takes no argument, and is collective, too. The exchange is chosen during
    the first steps: while ``trainer.choosing``.
    """
    with together(comm):
        net = _model(model, layers)
        net_optimizer = OPTIMIZERS[optimizer](1e-3)
        how = _parallel(parallel, optimizer)
    data = _random_rows(comm, model, layers, batch_size)
    with Trainer(
        net, net_optimizer, backend=backend, parallel=how, comm=comm
    ) as trainer:
        step = partial(trainer.prepare(data), slice(0, len(data)))
        with computing():  # once, as in ``fit``
            yield trainer, step


def _time(trainer, step, steps):
    """Return seconds of each step and of each phase, on this rank. Collective."""
    from time import perf_counter

    for _ in range(1 + steps // 10):
        step()
    while trainer.choosing:
        step()
    trainer.comm.Barrier()
    trainer.laps.reset()
    seconds, last = [], perf_counter()
    for _ in range(steps):
        step()
        now = perf_counter()
        seconds.append(now - last)
        last = now
    return seconds, dict(trainer.laps.seconds)


def _parallel(settings, optimizer):
    """Return the Parallel of ``key=value`` settings, checked like a configuration."""
    rest = '[data]\ntrain = "random.npz"\n[model]\nkind = "mlp"\n'
    for setting in settings:
        if "=" not in setting:
            raise ConfigError(
                f"--parallel {setting}: expected key=value, such as overlap=on"
            )
    overrides = [f"optimizer.name={optimizer}", *(f"parallel.{s}" for s in settings)]
    parallel = parse(rest, where="--parallel", overrides=overrides).parallel
    if parallel.strategy == "server":
        raise ConfigError("--parallel strategy=server: its servers have no steps")
    return parallel


def _model(model, layers):
    if len(layers) < 2 or (model != "mlp" and len(layers) != 2):
        wanted = "features,outputs" if model != "mlp" else "features,hidden...,outputs"
        raise ConfigError(f"--layers of {model}: expected {wanted}, got {layers}")
    if model == "logistic" and layers[1] != 1:
        raise ConfigError(f"--layers of logistic: expected one output, got {layers[1]}")
    if model == "linear":
        return Linear(*layers)
    if model == "logistic":
        return Logistic(layers[0])
    if model == "softmax":
        return Softmax(*layers)
    return MLP(layers[0], layers[1:-1], layers[-1])


def _random_rows(comm, model, layers, batch_size):
    rng = np.random.default_rng(comm.rank)
    x = rng.standard_normal((batch_size, layers[0])).astype(np.float32)
    if model == "linear":
        y = rng.standard_normal((batch_size, layers[-1])).astype(np.float32)
    else:
        y = rng.integers(0, max(2, layers[-1]), batch_size)
    return Dataset(x, y, comm=comm)
