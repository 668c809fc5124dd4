"""The trainings of which the time to a score is measured."""

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from functools import partial

from pympi_train.config.config import Config
from pympi_train.errors import ConfigError

RATE_RULES = ("none", "linear", "sqrt")
METRIC_KEYS = ("accuracy", "validation_loss", "train_loss", "rmse", "r2")


@dataclass(frozen=True)
class ScorePoint:
    """One training that ends at a score.

    Attributes
    ----------
    ranks, batch_size, seed : int
    learning_rate : float
    settings : tuple of str
        ``section.key=value``, to be set in the configuration file.
    config : Config
        With these settings. Its run directory is named by them.
    """

    ranks: int
    batch_size: int
    seed: int
    learning_rate: float
    settings: tuple
    config: Config


def scaled_rate(rate, batch_size, reference, rule):
    r"""Return the learning rate for another batch size.

    Parameters
    ----------
    rate : float
        That of the batch size ``reference``.
    batch_size, reference : int
    rule : {"none", "linear", "sqrt"}
        linear: in proportion to the batch size [1]_, for SGD far below the critical
        batch size; sqrt: to its root, which keeps the variance of an update [2]_, and
        is the rule for Adam [3]_; none: the same.

    References
    ----------
    .. [1] P. Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1
       Hour", 2017, arXiv:1706.02677, section 2.1.
    .. [2] A. Krizhevsky, "One weird trick for parallelizing convolutional neural
       networks", 2014, arXiv:1404.5997, section 5.
    .. [3] S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
       Algorithms", NeurIPS 2022, arXiv:2205.10287.

    Examples
    --------
    >>> [scaled_rate(0.1, 256, 64, rule) for rule in ("none", "linear", "sqrt")]
    [0.1, 0.4, 0.2]
    """
    factor = batch_size / reference
    return rate * {"none": 1.0, "linear": factor, "sqrt": math.sqrt(factor)}[rule]


def points_to_measure(
    configure,
    *,
    ranks,
    overrides=(),
    batch_sizes=None,
    seeds=None,
    metric=None,
    score=None,
    scale_rate="none",
    directory=None,
):
    """Return the ScorePoints of all combinations, in the order to measure them.

    Seeds come last, so that a disturbance of the machine does not hit the repeats of
    one combination alone.

    Parameters
    ----------
    configure : callable
        ``configure(settings)`` returns the Config of a file with these settings,
        ``section.key=value``.
    ranks : sequence of int
    overrides : sequence of str
        Settings of all trainings.
    batch_sizes, seeds : sequence of int, optional
        By default those of the configuration.
    metric : str, optional
        One of ``METRIC_KEYS``; by default [train] monitor.
    score : float, optional
        By default [train] target.
    scale_rate : {"none", "linear", "sqrt"}
    directory : str, optional
        Where the run directories are made; by default beside [output] directory.

    Raises
    ------
    ConfigError
        If there is no score, or a setting is invalid.
    """
    base = configure(overrides)
    train = base.train
    score = train.target if score is None else score
    if score is None:
        raise ConfigError(
            "the score to reach is missing: --metric accuracy --score 0.95, or [train] "
            "monitor and target"
        )
    if base.optimizer.name in ("gd", "lbfgs"):
        raise ConfigError(
            f"{base.optimizer.name} takes all rows in each step: there is no batch "
            "size to choose"
        )
    directory = directory or f"{base.output.directory}-time-to-score"
    common = [*overrides, f"train.target={score!r}"]
    if metric is not None:
        common.append(f"train.monitor={metric}")
    if _is_accepted(configure, [*common, "train.gradient_noise=true"]):
        common.append("train.gradient_noise=true")
    make = partial(_point, configure, common, directory, scale_rate, base)
    return [
        make(n_ranks, batch_size, seed)
        for seed in seeds or (train.seed,)
        for batch_size in batch_sizes or (train.batch_size,)
        for n_ranks in ranks
    ]


def _is_accepted(configure, settings):
    try:
        configure(settings)
    except ConfigError:
        return False
    return True


def _point(configure, common, directory, rule, base, n_ranks, batch_size, seed):
    configured = base.train.batch_size, base.optimizer.learning_rate
    rate = scaled_rate(configured[1], batch_size, configured[0], rule)
    settings = [
        *common,
        f"train.batch_size={batch_size}",
        f"train.seed={seed}",
        f"optimizer.learning_rate={rate!r}",
    ]
    config = configure(settings)
    name = f"ranks{n_ranks}-batch{batch_size}-seed{seed}-{settings_hash(config)}"
    run = os.path.join(directory, name)
    paths = {"output.directory": run}
    if base.checkpoint.directory is not None:
        paths["checkpoint.directory"] = os.path.join(run, "checkpoints")
    settings += [f"{key}={json.dumps(path)}" for key, path in paths.items()]
    config = configure(settings)
    return ScorePoint(n_ranks, batch_size, seed, rate, tuple(settings), config)


def settings_hash(config):
    """Return eight hex digits that differ if a setting of a training does.

    The run directory, the checkpoints and the number of epochs, which may grow, do not
    count.
    """
    config = replace(config, train=replace(config.train, epochs=1))
    plain = config.to_dict()
    for section in ("output", "checkpoint", "search"):
        del plain[section]
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
