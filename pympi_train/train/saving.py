"""The state of a training: taken from a Trainer, and given to one."""

from pympi_train.comm.checks import together
from pympi_train.errors import DataError
from pympi_train.flat.state import State
from pympi_train.train.progress import Progress


def state_of(trainer, everyone):
    """Return what `Trainer.state` returns. Collective over ``everyone``."""
    state, strategy = State(), trainer.strategy
    with together(everyone):
        _require_no_service(trainer)
        strategy.add_to(state)
    if trainer.serves:
        return state
    sums = strategy.totals(*trainer.progress.sums())
    progress = trainer.progress.numbers(sums)
    state.values["progress"] = {**progress, "steps": strategy.count}
    state.values["optimizer"] = type(trainer.optimizer).__name__
    watching = trainer.watching
    if watching is not None and watching.best is not None:
        state.values["stopping"] = {
            "monitor": watching.monitor,
            "patience": watching.patience,
            "best": dict(watching.best),
        }
    return state


def resume(trainer, state, everyone):
    """Do what `Trainer.load_state` does. Collective over ``everyone``."""
    kept, values, strategy = None, state.values, trainer.strategy
    with together(everyone):
        _require_no_service(trainer)
        _require_kind(trainer, values)
        found = strategy.read(state)
        if "stopping" in values:
            kept = strategy.read(state, "best/")
    strategy.take(found)
    strategy.kept = None
    if kept is not None:
        strategy.take_kept(kept)
    if trainer.serves:
        return
    progress = values["progress"]
    trainer.progress = Progress.of_numbers(progress, strategy.share_of_totals)
    strategy.go_on_from(progress["steps"])
    trainer.watching = None
    if kept is not None:
        told = values["stopping"]
        trainer.watch(told["patience"], told["monitor"]).best = told["best"]


def _require_no_service(trainer):
    if trainer.is_fitting and trainer.parallel.strategy == "server":
        raise RuntimeError("with servers, take or load a state outside of fit")


def _require_kind(trainer, values):
    own, found = type(trainer.optimizer).__name__, values.get("optimizer")
    if own != found:
        raise DataError(f"state: expected that of optimizer {own}, got {found}")
