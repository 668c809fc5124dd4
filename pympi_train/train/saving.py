"""Saves the state of a Trainer, and loads it into another."""

import zlib

from pympi_train.comm.checks import require_equal, together
from pympi_train.errors import ConfigError, DataError
from pympi_train.flat.state import State
from pympi_train.train.progress import Progress
from pympi_train.train.record import means_of


def state_of(trainer, everyone, copies=True):
    """Return the result of `Trainer.state`. Collective over ``everyone``.

    Without ``copies`` it may hold the arrays of the training themselves.
    """
    state, strategy = State(copies=copies), trainer.strategy
    with together(everyone):
        if trainer.is_fitting and trainer.parallel.strategy == "server":
            raise RuntimeError("with servers, take a state outside of fit")
        strategy.add_to(state)
    if trainer.serves:
        return state
    sums = strategy.totals(*trainer.progress.sums())
    spent = means_of(trainer.comm, trainer.progress.spent)
    _add_values(trainer, state, sums, spent)
    if trainer.noise is not None:
        state.values["gradient_noise"] = trainer.noise.totals(trainer.comm)
    return state


def replica_of(trainer):
    """Return the whole state as this rank alone has it, or None. Not collective.

    For a training that other ranks have left between two steps. The averages of the
    gradient's noise, to which those ranks have added, begin anew. The state may hold
    the arrays of the training themselves.
    """
    is_over = trainer.ended not in (None, "stop")  # the best epoch may be restored
    if not trainer.strategy.is_replicated or is_over:
        return None
    state = State(copies=False)
    trainer.strategy.add_to(state)
    _add_values(trainer, state, trainer.progress.sums(), trainer.progress.spent)
    return state


def _add_values(trainer, state, sums, spent):
    """Add what is not an array: ``sums`` and ``spent`` as in `Progress.numbers`."""
    strategy, progress = trainer.strategy, trainer.progress.numbers(sums, spent)
    state.values["progress"] = {**progress, "steps": strategy.count}
    state.values["optimizer"] = type(trainer.optimizer).__name__
    choices = strategy.choices()
    if choices:
        state.values["choices"] = choices
    watching = trainer.watching
    if watching is not None and watching.best is not None:
        state.values["stopping"] = {
            "monitor": watching.monitor,
            "patience": watching.patience,
            "best": dict(watching.best),
        }


def resume(trainer, state, everyone):
    """Load a state, as `Trainer.load_state`. Collective over ``everyone``."""
    kept, strategy = None, trainer.strategy
    with together(everyone):
        _require_state(trainer, state)
        values = state.values
        told = zlib.crc32(repr(sorted(_without_times(values).items())).encode())
    hint = "Every rank needs the same merged State."
    require_equal(everyone, "the checksum of the state's values", told, hint=hint)
    with together(everyone):
        found = strategy.read(state)
        if "stopping" in values:
            kept = strategy.read(state, "best/")
    strategy.take(found)
    strategy.kept = None
    if kept is not None:
        strategy.take_kept(kept)
    progress = values["progress"]
    strategy.go_on_from(progress["steps"])
    if trainer.serves:
        return
    trainer.progress = Progress.of_numbers(progress, strategy.share_of_totals)
    strategy.take_choices(values.get("choices", {}))
    if trainer.noise is not None:
        trainer.noise.take(values.get("gradient_noise"), trainer.comm.rank)
    trainer.watching = None
    if kept is not None:
        told = values["stopping"]
        trainer.watch(told["patience"], told["monitor"]).best = told["best"]


def start(trainer, tensors, everyone):
    """Start from weights, as `Trainer.start_from`. Collective over ``everyone``."""
    strategy, fitting, misfits = trainer.strategy, {}, {}
    with together(everyone):
        if strategy.count or trainer.progress.batch:
            raise ConfigError("start_from: this Trainer has taken steps already")
        fitting, misfits = _fitting(trainer.model.layout, tensors)
    told = zlib.crc32(repr((sorted(fitting), sorted(misfits.items()))).encode())
    hint = "Every rank needs tensors of the same names and shapes."
    require_equal(everyone, "the checksum of the tensors' shapes", told, hint=hint)
    with together(everyone):
        found = strategy.read_params(fitting)
    strategy.take_params(found)
    return misfits


def _fitting(layout, tensors):
    """Return the tensors that fit a layout, and why others do not, by name."""
    fitting, misfits = {}, {}
    shapes = {tensor.name: tuple(tensor.shape) for tensor in layout.tensors}
    for name, shape in shapes.items():
        if name not in tensors:
            misfits[name] = "is not there"
            continue
        found = tensors[name]
        if tuple(found.shape) != shape:
            misfits[name] = f"has shape {tuple(found.shape)}, the model's is {shape}"
        elif found.dtype.kind != "f":
            misfits[name] = f"is {found.dtype}"
        else:
            fitting[name] = found
    for name in sorted(set(tensors) - set(shapes)):
        misfits[name] = "is not in the model"
    if not fitting:
        told = "; ".join(f"{name} {why}" for name, why in misfits.items())
        raise DataError(f"no tensor fits the model: {told}")
    return fitting, misfits


def _without_times(values):
    """Return the values that do not depend on how fast a rank was."""
    progress = {k: v for k, v in values["progress"].items() if k != "spent"}
    return {**values, "progress": progress}


def _require_state(trainer, state):
    if not isinstance(state, State):
        kind = type(state).__name__
        raise DataError(f"state: expected the merged State of all ranks, got {kind}")
    own, found = type(trainer.optimizer).__name__, state.values.get("optimizer")
    if own != found:
        raise DataError(f"state: expected that of optimizer {own}, got {found}")
    _require_dtype(trainer.model.layout.dtype, state)
    if "progress" not in state.values:
        raise DataError("state: it does not say where the training stands (progress)")


def _require_dtype(dtype, state):
    """Raise DataError if parameters have another dtype: a cast could lose digits."""
    found = {
        region.array.dtype
        for name, regions in state.regions.items()
        if name.startswith("params/")
        for region in regions
    }
    if found - {dtype}:
        told = ", ".join(sorted(map(str, found)))
        raise DataError(f"state: expected parameters of {dtype}, got {told}")
