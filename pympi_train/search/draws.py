"""Which trials there are: all combinations, or random ones that depend on no other."""

import itertools
import math

from pympi_train.errors import ConfigError
from pympi_train.random import SEARCH, bits
from pympi_train.search.space import OPTION

MAX_TRIALS = 10_000
MAX_CORNERS = 1000  # each is parsed before tpe begins: 1 ms
MAX_DRAWS = 100  # for each trial, until one is found that no earlier one is


def grid_of(space):
    """Return the overrides of all combinations: a list of tuples of str.

    The last parameter varies fastest.

    Raises
    ------
    ConfigError
        If a range has no count, or there are more than ``MAX_TRIALS`` combinations.
    """
    for parameter in space:
        if parameter.values is None:
            raise ConfigError(
                f"{OPTION} {parameter.key}: all combinations need a count: "
                f"{parameter.scale}:{parameter.low:g}..{parameter.high:g}:9, or another"
                " --method"
            )
    n = math.prod(len(parameter.values) for parameter in space)
    if n > MAX_TRIALS:
        raise ConfigError(
            f"{n:,} combinations are more than {MAX_TRIALS:,}: give fewer values, or "
            "--method random --trials N"
        )
    choices = [list(map(parameter.override, parameter.values)) for parameter in space]
    return list(itertools.product(*choices))


def random_trial(space, seed, number):
    """Return the overrides of the random trial ``number``.

    Parameter ``j`` takes word ``j`` of a stream of its own for each trial.
    """
    words = bits(seed, SEARCH, number, 0, len(space))
    places = [int(word) / 2**64 for word in words >> 11 << 11]
    return tuple(p.override(p.at(u)) for p, u in zip(space, places))


def corners_of(space):
    """Return the overrides of combinations of all listed values and ends of ranges.

    If they are more than ``MAX_CORNERS``, only as many that each value is among them.
    """
    ends = [p.values or (p.at(0.0), p.at(1 - 2**-53)) for p in space]
    choices = [list(map(p.override, values)) for p, values in zip(space, ends)]
    if math.prod(map(len, choices)) <= MAX_CORNERS:
        return list(itertools.product(*choices))
    n = max(map(len, choices))
    return [tuple(of[i % len(of)] for of in choices) for i in range(n)]


def random_trials(space, n_trials, seed):
    """Return the overrides of ``n_trials`` distinct random trials, in their order.

    Raises
    ------
    ConfigError
        If there are fewer combinations.
    """
    found: dict = {}
    for number in range(MAX_DRAWS * n_trials):
        found.setdefault(random_trial(space, seed, number))
        if len(found) == n_trials:
            return list(found)
    raise ConfigError(
        f"--trials {n_trials}: random draws found only {len(found)} combinations of "
        "these values; lower it, or use --method grid"
    )
