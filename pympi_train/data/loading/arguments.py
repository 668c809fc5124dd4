"""Checks of the arguments of `load`, by the rules of the configuration."""

import math
import numbers
import os

import numpy as np

from pympi_train.errors import ConfigError, DataError

TASKS = ("classification", "regression")
DTYPES = ("float32", "float64")
# The only formats that a reading option applies to.
ONLY_FOR = {
    "header": ("csv", "tsv"),
    "n_features": ("svm",),
    "zero_based": ("svm",),
}


def require_choice(name, value, choices):
    """Raise ConfigError unless ``value`` is one of ``choices``."""
    if value not in choices:
        known = " or ".join(map(repr, choices))
        raise ConfigError(f"{name} must be {known}, got {value!r}")


def checked_dtype(dtype):
    """Return "float32" or "float64" for a dtype, or its name."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = dtype
    require_choice("dtype", name, DTYPES)
    return name


def checked_validation(value):
    """Return a fraction above 0, files by name, or None.

    Raises
    ------
    ConfigError
        If ``value`` is none of these and not 0.
    """
    if value is None or isinstance(value, (str, os.PathLike, list, tuple)):
        require_names(validation=value)
        return value
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ConfigError(
            "validation must be a fraction of the rows, at least 0 and below 1, or a "
            f"file or files, got {value!r}"
        )
    return float(value) or None


def require_names(**values):
    """Raise ConfigError unless each value is a name, a list of names or None."""
    for name, value in values.items():
        items = [value] if isinstance(value, (str, os.PathLike)) else value
        is_list = isinstance(items, (list, tuple)) and len(items)
        if value is not None and not (
            is_list and all(isinstance(item, (str, os.PathLike)) for item in items)
        ):
            raise ConfigError(f"{name} must be a name or a list of them, got {value!r}")


def require_text(name, value):
    """Raise ConfigError unless ``value`` is text or None."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} must be a name, got {value!r}")


def require_positive(name, value):
    """Raise ConfigError unless ``value`` is a finite number above 0, or None."""
    if value is None:
        return
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a number above 0, got {value!r}")


def require_unset(why, **values):
    """Raise ConfigError if a value is not None."""
    for name, value in values.items():
        if value is not None:
            raise ConfigError(f"{name} is {why}, got {value!r}")


def require_integer(name, value, least, most):
    """Raise ConfigError unless ``value`` is an integer within its limits."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or not least <= value <= most:
        raise ConfigError(
            f"{name} must be an integer from {least} to {most}, got {value!r}"
        )


def require_bools(**values):
    """Raise ConfigError unless each value is True or False."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ConfigError(f"{name} must be True or False, got {value!r}")


def checked_standardize_target(value, standardize, task):
    """Return whether targets are scaled.

    None means: as the features are, for a regression.
    """
    if value is None:
        return standardize and task == "regression"
    require_bools(standardize_target=value)
    if value and task != "regression":
        raise ConfigError("standardize_target is for regression")
    return value


def require_fitting(files, **options):
    """Raise ConfigError if an option does not apply to the format of ``files``.

    Raises
    ------
    DataError
        If these are token files, which have no features.
    """
    if files.format == "tokens":
        raise DataError(
            f"{files.name}: token files have windows of tokens, not features: "
            'train with [model] kind = "neural-ngram" on them, or take pt.TokenDataset '
            "and a model of your own"
        )
    for name, value in options.items():
        if value is None:
            continue
        if files.format not in ONLY_FOR[name]:
            kinds = " and ".join(f".{kind}" for kind in ONLY_FOR[name])
            raise ConfigError(f"{name} is for {kinds} files, not {files.name}")
        if name != "n_features":
            require_bools(**{name: value})
        elif isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ConfigError(f"n_features must be a whole number, got {value!r}")
        elif value < 1:
            raise ConfigError(f"n_features must be at least 1, got {value}")
