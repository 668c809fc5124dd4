"""Checks that all ranks of a training pass the same arguments.

Ranks with different arguments would wait for each other for ever, or end with
different replicas. A check of a few bytes before the first step names the argument
that differs.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

from pympi_train.comm.checks import agreed_within, require_all_equal, together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import key_of
from pympi_train.data.sources.base import Source
from pympi_train.errors import ConfigError, RankMismatchError
from pympi_train.parallel.settings import NOT_BALANCED

STAYS_IN_FILE = (
    "balance moves rows between ranks, and here the training rows stay in a file from "
    "which a rank reads its own alone (sparse rows, text, columns of categories or "
    'dates, arrays that the caller mapped): use [data] memory = "in-memory", or leave '
    "balance out"
)


def agree_on_trainer(comm, layout, parts, counts, numbers, names):
    """Raise on all ranks unless they make the same Trainer.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
        Of the model.
    parts : dict of str to object
        Objects whose kind and public numbers have to be equal, or None.
    counts : dict of str to int
        At least 1.
    numbers : dict of str to number or None
    names : dict of str to str

    Raises
    ------
    ConfigError, ValueError
        If a number is outside its limits.
    RankMismatchError
        If a setting differs; the message names it and the first rank that differs.

    Notes
    -----
    Collective.
    """
    with together(comm):
        _require_positive(counts)
        _require_numbers(**numbers)
    settings = {
        "the number of parameters": layout.n_parameters,
        "dtype": str(layout.dtype),
        **{name: _settings(part) for name, part in parts.items()},
        **counts,
        **numbers,
        **names,
    }
    require_all_equal(comm, settings, hint="Make the same Trainer on every rank.")


def require_same_ranks(comm, *datasets):
    """Raise RankMismatchError unless all data sets, or None, were made on ``comm``.

    With a data set of other ranks, some rows would be used twice and others never.
    Collective.
    """
    with together(comm):
        for dataset in datasets:
            _require_source(dataset)
    made_on = [d.n_ranks for d in datasets if d is not None and d.key != key_of(comm)]
    (n_ranks,) = reduced(comm, [max(made_on, default=0)], op="MAX")
    if n_ranks:
        error = RankMismatchError(
            f"the data set was made on {n_ranks:.0f} ranks that are not the "
            f"{comm.size} of this Trainer in their order: make both on the same, "
            f"Dataset(..., comm=ranks) and Trainer(..., comm=ranks)"
        )
        raise agreed_within(comm, error)


class FitArguments(NamedTuple):
    """The arguments of ``Trainer.fit``."""

    train: Source
    validation: Source | None
    epochs: int
    patience: int | None
    monitor: str
    target: float | None
    balance: bool
    on_epoch: Callable | None
    on_step: Callable | None


def agree_on_fit(comm, progress, optimizer, given):
    """Raise on all ranks unless they call ``fit`` with the same FitArguments.

    Raises the errors of `agree_on_trainer`. Collective.
    """
    patience, target = given.patience, given.target
    with together(comm):
        _require_source(given.train)
        _require_source(given.validation)
        _require_positive({"epochs": given.epochs})
        if patience is not None:
            _require_positive({"patience": patience})
        if target is not None and not (_is(target, Real) and math.isfinite(target)):
            raise ValueError(f"target: expected a finite number, got {target!r}")
    settings = {
        "the optimizer's lr": getattr(optimizer, "lr", None),
        "the number of epochs done": progress.epoch,
        "the number of batches done of the epoch": progress.batch,
        "the number of training rows": given.train.n,
        "whether there are validation rows": given.validation is not None,
        "epochs": given.epochs,
        "patience": patience,
        "monitor": given.monitor,
        "target": target,
        "balance": given.balance,
    }
    require_all_equal(comm, settings, hint="Call fit alike on every rank.")


def require_movable(comm, parallel, train):
    """Raise ConfigError on all ranks unless rows of ``train`` can move in a training.

    Collective.
    """
    with together(comm):
        if parallel.strategy == "local":
            raise ConfigError(NOT_BALANCED)
        if not train.can_move:
            raise ConfigError(STAYS_IN_FILE)


def _settings(part):
    """Return the kind and the public settings of an optimizer, schedule or Parallel."""
    if part is None:
        return None
    kinds = (bool, int, float, str, tuple)
    public = {k: v for k, v in vars(part).items() if not k.startswith("_")}
    return type(part).__name__, {k: v for k, v in public.items() if type(v) in kinds}


def _require_source(dataset):
    if not isinstance(dataset, (Source, type(None))):
        if hasattr(dataset, "train"):
            hint = "what pt.load returns has them, as .train and .validation"
        else:
            hint = (
                "make one of arrays by pt.Dataset.split(x, y), or by pt.Dataset(x, y) "
                "of this rank's rows"
            )
        raise ConfigError(
            f"expected a data set, got {type(dataset).__name__}; {hint}"
        )


def require_parts(model, optimizer, schedule, parallel):
    """Raise ConfigError unless a Trainer is made of objects of the right kinds.

    Local: without them, there are no ranks yet to agree with.
    """
    for name, part, attribute, example in (
        ("model", model, "layout", "pt.Softmax(64, 10)"),
        ("optimizer", optimizer, "allocate", "pt.Adam(lr=1e-3)"),
        ("schedule", schedule, "factor", "pt.Cosine()"),
        ("parallel", parallel, "timeout_s", 'pt.Parallel(strategy="auto")'),
    ):
        if isinstance(part, type) or not hasattr(part, attribute):
            raise ConfigError(
                f"{name}: expected an object such as {example}, got {part!r}"
            )


def _require_numbers(seed, l2, clip_norm):
    """Raise ConfigError unless the numbers of a Trainer are within their limits."""
    if not _is(seed, Integral) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be an integer from 0 to 2^63 - 1, got {seed!r}")
    if not _is(l2, Real) or not 0 <= l2 < math.inf:
        raise ConfigError(f"l2 must be finite and not negative, got {l2!r}")
    is_usable = _is(clip_norm, Real) and 0 < clip_norm < math.inf
    if clip_norm is not None and not is_usable:
        raise ConfigError(f"clip_norm must be positive and finite, got {clip_norm!r}")


def _is(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


def _require_positive(counts):
    for name, value in counts.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
