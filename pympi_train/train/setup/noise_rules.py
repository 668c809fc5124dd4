"""Where the noise of the gradient cannot be estimated."""

from types import SimpleNamespace

from pympi_train.errors import ConfigError

# c has parallel, optimizer and train.
NOISE_RULES = tuple(
    (
        f"gradient_noise {reason}",
        lambda c, is_broken=is_broken: c.train.gradient_noise and is_broken(c),
    )
    for reason, is_broken in (
        (
            "compares gradients at one point: strategies server and local move each "
            "rank by its own",
            lambda c: c.parallel.strategy in ("server", "local"),
        ),
        (
            "needs the whole gradient of each rank: strategy sharded has it at stage 1",
            lambda c: c.parallel.strategy == "sharded" and c.parallel.stage > 1,
        ),
        (
            "needs exact sums: it works with no compression",
            lambda c: c.parallel.compression != "none",
        ),
        (
            "is for optimizers that step by batches: lbfgs takes all rows",
            lambda c: c.optimizer.name == "lbfgs",
        ),
    )
)


def require_noise(parallel, optimizer):
    """Raise ConfigError if the gradient's noise cannot be estimated with these.

    Parameters
    ----------
    parallel : Parallel
    optimizer : str
        Its name in a configuration.
    """
    c = SimpleNamespace(
        parallel=parallel,
        optimizer=SimpleNamespace(name=optimizer),
        train=SimpleNamespace(gradient_noise=True),
    )
    for reason, is_broken in NOISE_RULES:
        if is_broken(c):
            raise ConfigError(reason)
