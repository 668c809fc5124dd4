"""One spelling of texts that formats write differently."""

import re
from datetime import timezone

import numpy as np

from pympi_train.data.formats.label_column import BOOLEANS, NUMBER, as_integer
from pympi_train.data.formats.text_column import TextLabels, parse_time

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.+Z-]+)?")


def category_of(text):
    """Return the category that a text names.

    1, +1 and 1.0 are one category, and so are 1.5 and 1.50, true and True, and a time
    in any of its forms: a .csv and the Parquet file made of it have equal categories.

    Examples
    --------
    >>> [category_of(text) for text in (" 1.0 ", "1.50", "007", "TRUE")]
    ['1', '1.5', '007', 'true']
    >>> category_of("2026-01-31 00:00:00"), category_of("2026-01-31T12:30+01:00")
    ('2026-01-31', '2026-01-31T11:30:00')
    """
    text = text.strip()
    number = as_integer(text)
    if number is not None:
        return str(number)
    if NUMBER.fullmatch(text):
        return repr(float(text))
    if text.casefold() in BOOLEANS:
        return text.casefold()
    return _one_time(text) if _TIME.fullmatch(text) else text


def _one_time(text):
    try:
        time = parse_time(text).astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return text
    return time.isoformat().removesuffix("T00:00:00")


def spelled_alike(column):
    """Return a TextColumn as TextLabels of categories, "" where missing."""
    names = [*map(category_of, column.distinct), ""]
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    codes = np.array([place[name] for name in names])
    return TextLabels(np.array(list(place), dtype=str), codes[column.codes])
