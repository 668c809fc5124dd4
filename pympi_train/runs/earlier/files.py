"""Readers of the files that a run leaves in its directory."""

import json
import os

from pympi_train.checkpoint.durable import naming
from pympi_train.config import config as configuration
from pympi_train.errors import MALFORMED, DataError
from pympi_train.runs.output import CONFIG, RESULT


def read_run_text(directory, name):
    """Return the content of a file of a run, or None without it.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    path = os.path.join(directory, name)
    with naming(path, "read"):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: cannot be read: {error}") from error


def read_run_config(directory):
    """Return the Config of the run in a directory, as resolved, or None without one.

    Raises
    ------
    DataError
        If the file cannot be read.
    ConfigError
        If it is malformed.
    """
    text = read_run_text(directory, CONFIG)
    if text is None:
        return None
    return configuration.parse(text, where=directory, literal_paths=True)


def read_run_result(directory):
    """Return the result of the run in a directory, or None without one.

    Raises
    ------
    DataError
        If the file cannot be read, or is malformed.
    """
    text = read_run_text(directory, RESULT)
    if text is None:
        return None
    try:
        result = json.loads(text)
        if not isinstance(result, dict):
            raise TypeError(f"expected an object, got {type(result).__name__}")
        return result
    except MALFORMED as error:
        path = os.path.join(directory, RESULT)
        raise DataError(f"{path}: cannot be read: {error}") from error
