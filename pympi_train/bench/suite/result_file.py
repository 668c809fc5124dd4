"""Files of results: written whole, and checked when they are read."""

import json
from pathlib import Path

from pympi_train.errors import DataError

SCHEMA = "pympi-train/bench/1"
MAX_S = 1e15
MAKE = "make one with: pympi-train bench all --output FILE.json"


def schema():
    """Return the JSON schema of a result."""
    return json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))


def read_result(path):
    """Return the result in a file of ``bench all``.

    Raises
    ------
    DataError
        If it cannot be read, is no JSON, has another schema, or is damaged. The message
        says where.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {MAKE}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error}); {MAKE}") from error
    version = found.get("schema") if isinstance(found, dict) else None
    if version != SCHEMA:
        got = "none" if version is None else repr(version)
        raise DataError(f'{path}: expected "schema": "{SCHEMA}", got {got}; {MAKE}')
    wrong = _wrong(found)
    if wrong:
        raise DataError(f"{path}: {wrong}; the file is damaged: {MAKE}")
    return found


def _wrong(found):
    """Return what is wrong with what a comparison uses of a result, or None."""
    for key, kind in (("machine", dict), ("benchmarks", list)):
        if not isinstance(found.get(key), kind):
            return f"{key} is missing or of another type"
    names = []
    for i, one in enumerate(found["benchmarks"]):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            return f"benchmarks[{i}] has no name"
        if not isinstance(one.get("settings"), dict):
            return f"benchmarks[{i}] ({one['name']}) has no settings"
        if not _are_seconds(one.get("seconds")):
            return (
                f"benchmarks[{i}] ({one['name']}): seconds must be a list of rounds, "
                "each a list of positive numbers"
            )
        names.append(one["name"])
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"{twice[0]} is there twice" if twice else None


def _are_seconds(rounds):
    return (
        isinstance(rounds, list)
        and bool(rounds)
        and all(isinstance(one, list) and one for one in rounds)
        and all(_is_positive(value) for one in rounds for value in one)
    )


def _is_positive(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value < MAX_S  # also no NaN
