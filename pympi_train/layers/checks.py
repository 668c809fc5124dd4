"""Checks of constructor arguments that layers and models share."""

import operator

import numpy as np


def count(name, value, least=1):
    """Return ``value`` as an int of at least ``least``.

    Raises
    ------
    ValueError
        If it is not an integer or too small; the message names ``name``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    return number


def float_dtype(value):
    """Return ``value`` as a dtype: float32 or float64.

    Raises
    ------
    ValueError
        For any other type.
    """
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {value!r}")
    return dtype


def one_of(name, value, allowed):
    """Return ``value`` if it is in ``allowed``.

    Raises
    ------
    ValueError
        If it is not; the message names ``name`` and lists the allowed values.
    """
    if value not in allowed:
        known = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name}: expected one of {known}, got {value!r}")
    return value
