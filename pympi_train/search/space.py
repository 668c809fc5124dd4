"""The values that a search may give to a key, as text; parsed without MPI."""

import math
import re
from dataclasses import dataclass
from typing import Any

from pympi_train.config.config import key_field
from pympi_train.errors import ConfigError

OPTION = "--param"
MAX_VALUES = 10_000  # of a parameter
DIGITS = 10  # of a value in a range: 0.001, and not 0.0010000000000000002
NOT_SEARCHED = ("output", "search", "elastic", "checkpoint")
FORMS = (
    "values (0,1e-4), log:1e-4..1e-1:9, linear:0..1:5, or whole numbers (1..4); "
    "random, asha and tpe also take ranges without a count (log:1e-4..1e-1)"
)

_RANGE = re.compile(r"(log|linear):(.+?)\.\.([^:]+)(?::(.*))?")
_WHOLE = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)")
_OPENING, _CLOSING = "[{(", "]})"


@dataclass(frozen=True)
class Parameter:
    """A key of the configuration that is searched, and its values.

    Attributes
    ----------
    key : str
        "optimizer.learning_rate"
    values : tuple of str or None
        As they are written in overrides; None for a range without a count.
    scale : {"log", "linear", "whole"} or None
        Of a range; None for a list of values.
    low, high : float or None
        Ends of a range.
    is_whole : bool
        Whether values are whole numbers.
    """

    key: str
    values: Any = None
    scale: Any = None
    low: Any = None
    high: Any = None
    is_whole: bool = False

    def at(self, u):
        """Return the value, as text, at ``u`` in [0, 1): evenly by its scale."""
        if self.values is not None:
            return self.values[int(u * len(self.values))]
        if not self.is_whole:
            return _text(_between(self.scale, self.low, self.high, u), False)
        # Half a number more on both sides, or the ends would come half as often.
        value = round(_between(self.scale, self.low - 0.5, self.high + 0.5, u))
        return _text(min(max(value, self.low), self.high), True)

    def override(self, text):
        """Return the override that gives the key this value."""
        return f"{self.key}={text}"


def parse_parameter(text):
    """Return the Parameter of ``section.key=VALUES``.

    Parameters
    ----------
    text : str
        VALUES are separated by commas, each as for ``--set``; or a range,
        ``log:A..B:N`` or ``linear:A..B:N``, with or without ``:N``; or whole numbers,
        ``A..B``.

    Raises
    ------
    ConfigError
        If there is no such key, or the values are not of these forms.

    Examples
    --------
    >>> parse_parameter("optimizer.learning_rate=log:1e-3..1:4").values
    ('0.001', '0.01', '0.1', '1.0')
    >>> parse_parameter("model.hidden=[64,32],[128]").values
    ('[64,32]', '[128]')
    """
    key, equals, rest = (part.strip() for part in text.partition("="))
    _require(equals, text, "section.key=values")
    field, section = key_field(key, f"{OPTION} {text}"), key.partition(".")[0]
    if section in NOT_SEARCHED or key in ("data.fold", "data.validation"):
        raise ConfigError(f"{OPTION} {text}: {key} is the same in all trials")
    takes_whole = "int" in str(field.type) and "float" not in str(field.type)
    if (whole := _WHOLE.fullmatch(rest)) is not None:
        low, high = map(int, whole.groups())
        _require(low < high, text, f"the first end is below the second, got {rest}")
        _require_count(high - low + 1, text)
        values = tuple(map(str, range(low, high + 1)))
        return Parameter(key, values, "whole", low, high, True)
    if rest.startswith(("log:", "linear:")):
        found = _RANGE.fullmatch(rest)
        _require(found is not None, text, FORMS)
        return _range_of(key, takes_whole, found.groups(), text)
    values = tuple(_split(rest))
    _require(all(values), text, FORMS)
    _require_distinct(values, text)
    return Parameter(key, values)


def _range_of(key, is_whole, parts, text):
    """Return the Parameter of a range, given its parts as text."""
    scale, *ends, count = parts
    try:
        low, high = map(float, ends)
        n = None if count is None else int(count)
    except ValueError:
        raise ConfigError(f"{OPTION} {text}: expected {FORMS}") from None
    is_finite = math.isfinite(low) and math.isfinite(high)
    _require(is_finite and low < high, text, "finite ends, the first below the second")
    _require(scale == "linear" or low > 0, text, "ends above 0 for log")
    is_so = not is_whole or (low.is_integer() and high.is_integer())
    _require(is_so, text, f"whole numbers as ends, as {key} takes no others")
    if n is None:
        return Parameter(key, None, scale, low, high, is_whole)
    _require(n >= 2, text, f"a count of 2 or more, got {n}")
    _require_count(n, text)
    values = [_between(scale, low, high, i / (n - 1)) for i in range(n)]
    values = tuple(dict.fromkeys(_text(value, is_whole) for value in values))
    return Parameter(key, values, scale, low, high, is_whole)


def _between(scale, low, high, u):
    """Return the number at ``u`` from ``low`` (0) to ``high`` (1), both exact."""
    if u in (0, 1):
        return (low, high)[int(u)]
    if scale == "log":
        return math.exp((1 - u) * math.log(low) + u * math.log(high))
    return (1 - u) * low + u * high


def _text(value, is_whole):
    return str(round(value)) if is_whole else repr(float(f"{value:.{DIGITS}g}"))


def _split(text):
    """Return the parts of ``text`` between commas outside of brackets and quotes."""
    parts, depth, quote = [""], 0, None
    for char in text:
        if char == "," and not depth and quote is None:
            parts.append("")
            continue
        parts[-1] += char
        if quote is not None:
            quote = None if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in _OPENING) - (char in _CLOSING)
    return [part.strip() for part in parts]


def _require(is_so, text, expected):
    if not is_so:
        raise ConfigError(f"{OPTION} {text}: expected {expected}")


def _require_count(n, text):
    _require(n <= MAX_VALUES, text, f"at most {MAX_VALUES:,} values, got {n:,}")


def _require_distinct(values, text):
    seen = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{OPTION} {text}: the value {value} is there twice")
        seen.add(value)


def parse_space(texts):
    """Return the Parameters of several texts, each of another key.

    Raises
    ------
    ConfigError
        As `parse_parameter` does, if a key is there twice, or without any text.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise ConfigError(
            f"there is nothing to search: add {OPTION} "
            "optimizer.learning_rate=log:1e-4..1e-1:9, or [search] param"
        )
    found = [parse_parameter(text) for text in texts]
    keys = [parameter.key for parameter in found]
    for text, key in zip(texts, keys):
        if keys.count(key) > 1:
            raise ConfigError(f"{OPTION} {text}: {key} is there twice")
    return found
