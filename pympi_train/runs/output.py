"""The run directory: written by rank 0, read by any number of ranks."""

import fcntl
import hashlib
import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pympi_train.errors import ConfigError, DataError
from pympi_train.runs.schema_file import plain_schema, schema_of

WEIGHTS = "weights.safetensors"
CONFIG = "config.toml"
SCHEMA = "schema.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CURVES = "curves.png"
LOCK = ".lock"
# Files of a run, in the order of removal. The last one marks a run directory.
FILES = (WEIGHTS, CONFIG, METRICS, RESULT, CURVES, SCHEMA)

MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@contextmanager
def replacing(path):
    """Yield a temporary name beside ``path``; rename it to ``path`` at the end.

    A reader sees either the old file or the complete new one. If the body raises, the
    temporary file is removed and ``path`` is unchanged.

    Raises
    ------
    DataError
        If the file cannot be written, or ``path`` is a folder or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: cannot be written: it is no regular file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            # safetensors replaces the file by one that only its owner may read.
            temporary.chmod(mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path):
    """Convert system errors in the body into a DataError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be written: {reason}") from error


class RunDirectory:
    """Writes the files of a training run; on rank 0 only.

    Parameters
    ----------
    path : path
        Created if absent. Files of an earlier run in it are removed, so that weights
        and metrics never come from different runs. The directory is locked until
        ``release``, or until the process ends.
    config : Config
        As resolved: defaults filled in, paths absolute, measured choices included.
    schema : Schema

    Raises
    ------
    ConfigError
        If the directory cannot be created, is locked by another run, or has files of
        these names that no run wrote.
    DataError
        From every method, if a file cannot be written.
    """

    def __init__(self, path, config, schema):
        self.path, self._lock = Path(path), None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            self._clear()
        except OSError as error:
            self.release()
            raise ConfigError(
                f"[output] directory {path} cannot be made or emptied: "
                f"{error.strerror}; choose another"
            ) from error
        except ConfigError:
            self.release()
            raise
        # First, because it marks the directory as one that a later run may empty.
        self._write_text(SCHEMA, json.dumps(plain_schema(schema), indent=1) + "\n")
        self.save_config(config)
        self._write_text(METRICS, "")

    def _clear(self):
        """Remove the files of an earlier run, and no others."""
        found = [name for name in FILES if os.path.lexists(self.path / name)]
        if found and not _is_run(self.path):
            raise ConfigError(
                f"[output] directory {self.path}: holds {found[0]}, which no run of "
                "this program wrote; choose another directory"
            )
        for name in found:
            (self.path / name).unlink()

    def release(self):
        """Let other runs write to the directory."""
        if self._lock is not None:
            with self._lock, suppress(OSError):
                found = os.fstat(self._lock.fileno())
                if found.st_nlink and not found.st_size:  # else it is not our lock file
                    (self.path / LOCK).unlink()
            self._lock = None

    def save_config(self, config):
        """Write the configuration again, after training has resolved more of it."""
        self._write_text(CONFIG, _toml(config))

    def add_record(self, record):
        """Append the metrics of an epoch as one line."""
        line = json.dumps(finite(record)) + "\n"
        path = self.path / METRICS
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def save_weights(self, tensors):
        """Write ``tensors``, name to array in model order, as safetensors.

        The file has its own order. Its metadata give the model's order as "order".
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(a) for name, a in tensors.items()}
        metadata = {"format": "np", "order": json.dumps(list(arrays))}
        path = self.path / WEIGHTS
        with replacing(path) as temporary:
            try:
                save_file(arrays, temporary, metadata=metadata)
            except SafetensorError as error:  # raised for a full disk
                raise DataError(f"{path}: cannot be written: {error}") from error

    def finish(self, result):
        """Write the result, which marks the run as complete."""
        self._write_text(RESULT, json.dumps(finite(result), indent=1) + "\n")

    def _write_text(self, name, text):
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _locked(path):
    """Return the open lock file of the directory ``path``.

    It is locked if the file system supports locks.

    Raises
    ------
    ConfigError
        If another run holds the lock.
    """
    while True:
        file = open(path / LOCK, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"[output] directory {path}: another run is writing to it; wait for "
                "its end or choose another directory"
            ) from None
        except OSError:  # the file system has no locks
            return file
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed by a run that ended just now


def _is_run(path):
    """Return whether a run wrote the files in the directory ``path``."""
    try:
        plain = json.loads((path / SCHEMA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    sizes = {"n_features", "n_tokens"}  # of rows, of token files
    return isinstance(plain, dict) and "version" in plain and bool(sizes & set(plain))


def weights_sha256(tensors):
    """Return the SHA-256, hex, over the tensors in model order, without padding.

    The bytes of a tensor are its elements in C order, little-endian.
    """
    digest = hashlib.sha256()
    for array in tensors.values():
        little = array.dtype.newbyteorder("<")
        digest.update(np.ascontiguousarray(array, dtype=little).tobytes())
    return digest.hexdigest()


def read_run(path):
    """Return (configuration text, Schema, tensors by name) of a run directory.

    Raises
    ------
    DataError
        If a file is missing or not what ``RunDirectory`` writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such run directory; train writes one")
    for name in (CONFIG, SCHEMA, WEIGHTS):
        if not (path / name).is_file():
            raise DataError(
                f"{path}: no {name}; is it the [output] directory of a run that ended?"
            )
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
        plain = (path / SCHEMA).read_text(encoding="utf-8")
        tensors = load_file(path / WEIGHTS)
    # A dtype that NumPy lacks raises TypeError, KeyError or AttributeError.
    except (OSError, SafetensorError, *MALFORMED) as error:
        raise DataError(f"{path}: a file of it cannot be read: {error}") from error
    try:
        schema = schema_of(json.loads(plain))
    except MALFORMED as error:
        raise DataError(f"{path / SCHEMA}: malformed: {error}") from error
    return text, schema, tensors


def finite(record):
    """Return ``record`` with NaN and infinity as None, because JSON lacks them."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, list):
        return [finite(value) for value in record]
    if isinstance(record, float) and not np.isfinite(record):
        return None
    return record


def _toml(config):
    import tomli_w

    return tomli_w.dumps(config.to_dict())
