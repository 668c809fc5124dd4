"""The run directory: written by rank 0, read by any number of ranks."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pympi_train.checkpoint import store
from pympi_train.checkpoint.durable import naming, sync_folder
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs.schema_file import plain_schema

WEIGHTS = "weights.safetensors"
CONFIG = "config.toml"
SCHEMA = "schema.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CURVES = "curves.png"
TRACE = "trace.json"
LOCK = ".lock"
LOCK_TRY_S = 0.5  # `pympi-train resize` holds the lock for an instant, to look at it
PREVIOUS = "previous"  # files of an earlier run until this one has weights
# Files of a run, in the order of removal. The last one marks a run directory.
FILES = (WEIGHTS, CONFIG, METRICS, RESULT, CURVES, TRACE, SCHEMA)

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
        with naming(path):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            # safetensors replaces the file by one that only its owner may read.
            temporary.chmod(mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)  # before what it replaces, or follows, is removed
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class RunDirectory:
    """Writes the files of a training run; on rank 0 only.

    Parameters
    ----------
    path : path
        Created if absent. Files of an earlier run in it are moved to its folder
        "previous", so that weights and metrics never come from different runs, and
        removed when this run has weights of its own. The directory is locked until
        ``release``, or until the process ends.
    config : Config
        As resolved: defaults filled in, paths absolute, measured choices included.
    schema : Schema
    records : list of dict, optional
        Those of the epochs of a training that is resumed, whose checkpoints stay.

    Raises
    ------
    ConfigError
        If the directory cannot be created, is locked by another run, or has files of
        these names that no run wrote.
    DataError
        From every method, if a file cannot be written.
    """

    def __init__(self, path, config, schema, records=None):
        self.path, self._lock, self._schema = Path(path), None, schema
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(self.path, "[output] directory")
            if records is None:
                self._set_aside(config.checkpoints)
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
        self._write_text(SCHEMA, _schema_text(schema))
        self.save_config(config)
        self._write_text(METRICS, "".join(map(_line, records or ())))

    def _set_aside(self, checkpoints):
        """Move the files of an earlier run, and no others, to the folder PREVIOUS."""
        found = [name for name in FILES if os.path.lexists(self.path / name)]
        if found and not _is_run(self.path):
            raise ConfigError(
                f"[output] directory {self.path}: holds {found[0]}, which no run of "
                "this program wrote; choose another directory"
            )
        inside = Path(checkpoints).parent == self.path
        if store.entries(checkpoints):
            if not inside:
                raise ConfigError(
                    f"[checkpoint] directory {checkpoints}: it holds the checkpoints "
                    "of an earlier run; go on from them with --resume, remove them, or "
                    "choose another directory"
                )
            found.append(Path(checkpoints).name)
        previous = self.path / PREVIOUS
        # A run without weights leaves those of an earlier one where they are.
        moved = found if WEIGHTS in found else [n for n in found if n not in FILES]
        if moved:
            _remove([previous] if WEIGHTS in found else [previous / moved[0]])
            previous.mkdir(exist_ok=True)
        for name in moved:
            os.replace(self.path / name, previous / name)
        _remove(self.path / name for name in found if name not in moved)

    def texts(self, records):
        """Return the content of files that a checkpoint holds, by name.

        Parameters
        ----------
        records : list of dict
            Those of the epochs so far.
        """
        return {
            CONFIG: self._config_text,
            SCHEMA: _schema_text(self._schema),
            METRICS: "".join(map(_line, records)),
        }

    def release(self):
        """Let other runs write to the directory."""
        if self._lock is not None:
            unlock_directory(self.path, self._lock)
            self._lock = None

    def save_config(self, config):
        """Write the configuration again, after training has resolved more of it."""
        self._config_text = toml(config)
        self._write_text(CONFIG, self._config_text)

    def add_record(self, record):
        """Append the metrics of an epoch as one line."""
        path = self.path / METRICS
        with naming(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(record))

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
        _remove([self.path / PREVIOUS])

    def finish(self, result):
        """Write the result, which marks the run as complete."""
        self._write_text(RESULT, json.dumps(finite(result), indent=1) + "\n")

    def _write_text(self, name, text):
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _schema_text(schema):
    return json.dumps(plain_schema(schema), indent=1) + "\n"


def _line(record):
    return json.dumps(finite(record)) + "\n"


def _remove(paths):
    """Remove files, and folders with all that is in them."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def lock_directory(path, what, name=LOCK):
    """Return the open lock file ``name`` of the directory ``path``.

    It is locked if the file system supports locks. ``what`` begins the message.

    Raises
    ------
    ConfigError
        If another run holds the lock.
    """
    end_s = time.monotonic() + LOCK_TRY_S
    while True:
        file = open(path / name, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if time.monotonic() < end_s:
                time.sleep(LOCK_TRY_S / 20)
                continue
            raise ConfigError(
                f"{what} {path}: another run is writing to it; wait for its end or "
                "choose another directory"
            ) from None
        except OSError:  # the file system has no locks
            return file
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed by a run that ended just now


def unlock_directory(path, file, name=LOCK):
    """Close and remove the lock file that `lock_directory` returned."""
    with file, suppress(OSError):
        found = os.fstat(file.fileno())
        if found.st_nlink and not found.st_size:  # else it is not our lock file
            (Path(path) / name).unlink()


def is_locked(path):
    """Return whether a run holds the lock of its directory, as far as can be seen."""
    try:
        with open(Path(path) / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False  # unlocked again when the file is closed
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it is locked, or the file system has no locks
        return True


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


def finite(record):
    """Return ``record`` with NaN and infinity as None, because JSON lacks them."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, list):
        return [finite(value) for value in record]
    if isinstance(record, float) and not np.isfinite(record):
        return None
    return record


def toml(config):
    """Return a configuration as text."""
    import tomli_w

    return tomli_w.dumps(config.to_dict())
