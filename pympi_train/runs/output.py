"""The run directory: written by rank 0, read by any number of ranks."""

import hashlib
import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pympi_train.checkpoint import store
from pympi_train.checkpoint.durable import make_folders, naming, sync_folder
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs.lock import lock_directory, unlock_directory
from pympi_train.runs.schema_file import plain_schema

WEIGHTS = "weights.safetensors"
LAST_WEIGHTS = "the weights of step"  # in the error of a training that diverged
CONFIG = "config.toml"
SCHEMA = "schema.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CURVES = "curves.png"
TRACE = "trace.json"
PREVIOUS = "previous"  # files of an earlier run until this one has finished
# Files of a run, in the order of removal. The last one marks a run directory.
FILES = (WEIGHTS, CONFIG, METRICS, RESULT, CURVES, TRACE, SCHEMA)


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
        removed when this run has finished. The directory is locked until
        ``release``, or until the process ends. Files that somebody removes meanwhile
        are written again with the next metrics or weights.
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
        self.path, self._locks, self._schema = Path(path), [], schema
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock(self.path, "[output] directory")
            found = self._earlier_files() if records is None else []
            with suppress(DataError, OSError):  # what [checkpoint] on_error is for
                make_folders(config.checkpoints)
                if not self.path.samefile(config.checkpoints):
                    self._lock(config.checkpoints, "[checkpoint] directory")
            if records is None:
                self._set_aside(found, config.checkpoints)
        except OSError as error:
            self.release()
            raise ConfigError(
                f"[output] directory {path} cannot be made or emptied: "
                f"{error.strerror}; choose another"
            ) from error
        except ConfigError:
            self.release()
            raise
        self._config_text = toml(config)
        self._records = list(records or ())
        self._write_all()

    def _write_all(self):
        """Write all files that there are before the end."""
        with naming(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        for name, text in self.texts(self._records).items():
            self._write_text(name, text)

    def _restored(self):
        """Write all files again if somebody has removed some; return whether."""
        names = SCHEMA, CONFIG, METRICS
        is_whole = all(os.path.exists(self.path / name) for name in names)
        if not is_whole:
            self._write_all()
        return not is_whole

    def _earlier_files(self):
        """Return the names of the files of an earlier run."""
        found = [name for name in FILES if os.path.lexists(self.path / name)]
        if found and not is_run(self.path):
            raise ConfigError(
                f"[output] directory {self.path}: holds {found[0]}, which no run of "
                "this program wrote; choose another directory"
            )
        return found

    def _set_aside(self, found, checkpoints):
        """Move the files of an earlier run, and no others, to the folder PREVIOUS."""
        inside = Path(checkpoints).parent == self.path
        has_checkpoints = bool(store.entries(checkpoints))
        if has_checkpoints and not inside:
            raise ConfigError(
                f"[checkpoint] directory {checkpoints}: it holds the checkpoints "
                "of an earlier run; go on from them with --resume, remove them, or "
                "choose another directory"
            )
        previous = self.path / PREVIOUS
        # A run without a result leaves the weights of an earlier one where they are.
        if RESULT in found or (
            WEIGHTS in found and not (previous / WEIGHTS).is_file()
        ):
            _remove_previous(previous)
            previous.mkdir(exist_ok=True)
            for name in found:
                os.replace(self.path / name, previous / name)
        else:
            _remove(self.path / name for name in found)
        if has_checkpoints:
            store.move_all(checkpoints, previous / Path(checkpoints).name)

    def texts(self, records):
        """Return the content of files that checkpoints hold too, by name.

        The first one marks the directory as one that a later run may empty.

        Parameters
        ----------
        records : list of dict
            Those of the epochs so far.
        """
        return {
            SCHEMA: json.dumps(plain_schema(self._schema), indent=1) + "\n",
            CONFIG: self._config_text,
            METRICS: "".join(map(_line, records)),
        }

    def release(self):
        """Let other runs write to the directory."""
        while self._locks:
            unlock_directory(*self._locks.pop())

    def _lock(self, path, what):
        self._locks.append((path, lock_directory(path, what)))

    def save_config(self, config):
        """Write the configuration again, after training has resolved more of it."""
        self._config_text = toml(config)
        self._write_text(CONFIG, self._config_text)

    def add_record(self, record):
        """Append the metrics of an epoch as one line."""
        path = self.path / METRICS
        self._records.append(record)
        if self._restored():
            return
        with naming(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(record))

    def save_weights(self, tensors):
        """Write ``tensors``, name to array in model order, as safetensors.

        The file has its own order. Its metadata give the model's order as "order".
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        self._restored()
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
        _remove_previous(self.path / PREVIOUS)

    def _write_text(self, name, text):
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _line(record):
    return json.dumps(finite(record)) + "\n"


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)


def _remove_previous(folder):
    """Remove what runs have moved to the folder PREVIOUS, and nothing else."""
    if not folder.is_dir() or folder.is_symlink():
        return
    _remove(folder / name for name in FILES)
    for inner in folder.iterdir():
        with suppress(DataError):  # somebody else's folder, which cannot be read
            store.remove_all(inner)
    with suppress(OSError):  # not empty: somebody else's files
        folder.rmdir()


def is_run(path):
    """Return whether a run wrote the files in the directory ``path``."""
    try:
        plain = json.loads((Path(path) / SCHEMA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    sizes = {"n_features", "n_tokens"}  # of rows, of token files
    return isinstance(plain, dict) and "version" in plain and bool(sizes & set(plain))


def weights_sha256(arrays):
    """Return the SHA-256, hex, over the tensors in model order, without padding.

    The bytes of a tensor are its elements in C order, little-endian. ``arrays`` is an
    iterable, so that not all of them need be in memory.
    """
    digest = hashlib.sha256()
    for array in arrays:
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
