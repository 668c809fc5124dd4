"""Keys of the configuration: their types and limits, and checks of their values."""

import dataclasses
import difflib
import math
import types
import typing

from pympi_train.errors import ConfigError

MOST = 2**53  # whole numbers up to here are exact as floats


def key(doc, default=dataclasses.MISSING, **limits):
    """Return a dataclass field for a key: its meaning, default and limits.

    Limits are ``choices``, ``least``, ``above``, ``most``, ``below``. They apply to
    each element of a list or a table.
    """
    metadata = {"doc": doc, **limits}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls, table, where):
    """Return the dataclass ``cls``, whose fields are keys, filled from a TOML table.

    Raises
    ------
    ConfigError
        If a key is unknown or missing, or its value has a wrong type or is outside its
        limits.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {_shown(table)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    require_known(table, fields, where, "key")
    values = {name: checked(fields[name], table[name], where) for name in table}
    for name, f in fields.items():
        required = f.default is f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where} needs the key {name!r}: {f.metadata['doc']}")
    return cls(**values)


# Names in the library, and in other packages, of keys that have other names here.
_ALIASES = {
    "lr": "learning_rate",
    "hidden_layer_sizes": "hidden",
    "random_state": "seed",
    "max_iter": "epochs",
    "alpha": "l2",
}


def require_known(table, known, where, what):
    """Raise ConfigError, with the closest name, if a name in ``table`` is unknown."""
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            if _ALIASES.get(name) in known:
                close = [_ALIASES[name]]
            known = ", ".join(known)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
            raise ConfigError(f"{where}: unknown {what} {name!r}; {hint}")


def checked(f, value, where):
    """Return ``value``, converted to the type of its key ``f``.

    Raises
    ------
    ConfigError
        If it has a wrong type or is outside the key's limits.
    """
    given, value = value, value if _is(value, f.type) else _with_floats(value)
    if not _is(value, f.type):
        raise ConfigError(
            f"{where} {f.name} must be {_type_name(f.type)}, got {_shown(given)}"
        )
    for item in _items(value):
        wrong = _outside(item, f.metadata)
        if wrong:
            raise ConfigError(f"{where} {f.name} must be {wrong}, got {_shown(item)}")
    return value


def takes_text_alone(kind):
    """Return whether a key of the annotated type ``kind`` takes only text."""
    kinds = typing.get_args(kind) or (kind,)
    return str in kinds and not {int, float, bool}.intersection(kinds)


def _shown(value, most=200):
    """Return ``value`` as text for a message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= most else text[:most] + "..."


def _with_floats(value):
    """Return whole numbers as floats: 1 is a valid learning rate."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if type(value) is not int:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _items(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else [value]


def _is(value, kind):
    """Return whether ``value`` has the annotated type ``kind``; bool is no number."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return any(_is(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_is(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(v, args[1]) for v in value.values())
    return type(value) is kind


def _outside(value, limits):
    """Return a description of the limit that ``value`` violates, or None."""
    if "choices" in limits and value not in limits["choices"]:
        return "one of " + ", ".join(map(repr, limits["choices"]))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return "finite"
    if "least" in limits and value < limits["least"]:
        return f"at least {limits['least']}"
    if "above" in limits and value <= limits["above"]:
        return f"above {limits['above']}"
    if "most" in limits and value > limits["most"]:
        return f"at most {limits['most']}"
    if "below" in limits and value >= limits["below"]:
        return f"below {limits['below']}"
    return None


def _type_name(kind):
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_type_name(arg) for arg in typing.get_args(kind))
    names = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "true or false",
        dict: "a table",
        type(None): "left out",
    }
    if typing.get_origin(kind) is list:
        return f"a list, each {_type_name(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is dict:
        return "a table of numbers"
    return names[kind]
