"""Trials by Optuna's TPE, asked and told on rank 0: in memory, without a database."""

import math
import warnings

from pympi_train.errors import ConfigError


class Tpe:
    """Asks Optuna for trials.

    Parameters
    ----------
    space : list of Parameter
    seed : int

    Raises
    ------
    ConfigError
        If Optuna is not installed.

    Notes
    -----
    The trials are a pure function of the seed, and of the order of `ask` and `tell`.

    References
    ----------
    .. [1] J. Bergstra, R. Bardenet, Y. Bengio and B. Kegl, "Algorithms for
       Hyper-Parameter Optimization", NIPS 2011.
    """

    def __init__(self, space, seed):
        optuna = require_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._space = optuna, space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its options are called experimental
            # Trials in flight count as bad ones: their neighbours are not asked too.
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            self._study = optuna.create_study(sampler=sampler)
        self._made_of = {p.key: _distribution(p, optuna) for p in space}

    def ask(self):
        """Return Optuna's number of the next trial, and its overrides."""
        trial = self._study.ask(self._made_of)
        texts = (
            p.override(_value_text(trial.params[p.key])) for p in self._space
        )
        return trial.number, tuple(texts)

    def tell(self, number, cost):
        """Take the cost of a trial, which is minimised; infinite if it failed."""
        if math.isfinite(cost):
            self._study.tell(number, cost)
        else:
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)


def require_optuna():
    """Return the module optuna.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "--method tpe needs Optuna: pip install 'pympi-train[search]'"
        ) from None
    return optuna


def _distribution(parameter, optuna):
    kinds = optuna.distributions
    if parameter.values is not None and parameter.scale != "whole":
        return kinds.CategoricalDistribution(parameter.values)
    low, high, log = parameter.low, parameter.high, parameter.scale == "log"
    if parameter.is_whole:
        low, high = math.ceil(low), math.floor(high)
        return kinds.IntDistribution(low, high, log=log)
    return kinds.FloatDistribution(low, high, log=log)


def _value_text(value):
    """Return a value as text; choices are text already."""
    return value if isinstance(value, str) else repr(value)
