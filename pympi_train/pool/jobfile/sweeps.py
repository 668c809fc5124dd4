"""Sweeps: lists of values of keys, and the combinations that they stand for."""

import itertools
import math

from pympi_train.errors import ConfigError

MAX_JOBS = 10_000  # of a job file


def dotted(table, where):
    """Return a table by "section.key".

    TOML writes one key as ``"train.epochs" = 3`` and as ``train.epochs = 3``; the
    second gives a table of the section. Spaces around names are dropped.

    Raises
    ------
    ConfigError
        If a key has no section, or occurs in both forms.
    """
    found = {}
    for name, value in table.items():
        if "." in name:
            inner = {name: value}
        elif isinstance(value, dict):
            inner = {f"{name}.{key}": one for key, one in value.items()}
        else:
            raise ConfigError(f"{where} {name}: expected section.key")
        for path, one in inner.items():
            path = ".".join(part.strip() for part in path.split("."))
            if path in found:
                raise ConfigError(f"{where} {path}: occurs twice")
            found[path] = one
    return found


def combinations(sweep, how, where):
    """Return what a sweep stands for: a list of dicts, from key to value.

    Parameters
    ----------
    sweep : dict
        List of values by "section.key".
    how : str
        "grid": each with each, the last key fastest; "zip": the i-th of all keys.
    where : str
        Beginning of messages.

    Raises
    ------
    ConfigError
        If a value is no list, a list is empty, lists of "zip" have different lengths,
        there are more than `MAX_JOBS` combinations, or one of them is there twice.
    """
    for path, values in sweep.items():
        if not isinstance(values, list):
            raise ConfigError(f"{where} {path}: expected a list of values")
        if not values:
            raise ConfigError(f"{where} {path}: the list is empty, so there is no job")
    sizes = {path: len(values) for path, values in sweep.items()}
    if not sizes:
        raise ConfigError(f"{where}: it is empty; leave it out for a single job")
    if how == "zip" and len(set(sizes.values())) > 1:
        each = ", ".join(f"{path} {size}" for path, size in sizes.items())
        raise ConfigError(f'{where}: how = "zip" needs lists of one length, got {each}')
    n = math.prod(sizes.values()) if how == "grid" else min(sizes.values())
    if n > MAX_JOBS:
        raise ConfigError(f"{where}: {n:,} jobs, at most {MAX_JOBS:,} are possible")
    pick = itertools.product if how == "grid" else zip
    found = [dict(zip(sweep, values)) for values in pick(*sweep.values())]
    seen = set()
    for values in found:
        if (text := repr(values)) in seen:
            raise ConfigError(f"{where}: the combination {values} is there twice")
        seen.add(text)
    return found


def member_names(name, n):
    """Return the names of the ``n`` jobs of a sweep; their order is the sorted one.

    >>> member_names("rate", 10)[::9]
    ['rate-01', 'rate-10']
    """
    width = len(str(n))
    return [f"{name}-{i:0{width}}" for i in range(1, n + 1)]
