"""The file of a study: what was measured so far, as JSON and CSV."""

import csv
import hashlib
import json
import math
import os
import statistics
import tempfile
from contextlib import contextmanager
from pathlib import Path

from pympi_train.errors import ConfigError, DataError
from pympi_train.runs.lock import lock_directory, unlock_directory
from pympi_train.runs.output import replacing
from pympi_train.scaling.study.content_checks import require_study
from pympi_train.scaling.study.plan import StudyCase

SCHEMA = "pympi-train/scaling/1"
FIXED = ("schema", "config_hash", "machine", "mpi", "settings")
MEMORY_DIFFERS = 0.02  # of the memory that Linux reports on nodes of one kind, at most
KEY = ("mode", "strategy", "ranks", "repeat")
COLUMNS = (
    *KEY,
    "nodes",
    "cores_per_rank",
    "oversubscribed",
    "batch_size",
    "parameters",
    "steps",
    "median_step_s",
    "samples_per_s",
)


class Study:
    """The measurements of a study, in a file that is complete at any moment.

    Parameters
    ----------
    path : path
        OUT.json. If it exists, it is continued.
    about : dict
        schema, config, config_hash, machine, mpi, settings and created. None for
        machine and mpi: those of the file, or of the first study that is merged.

    Attributes
    ----------
    content : dict
        As in docs/scaling.md.

    Raises
    ------
    ConfigError
        If the file is of another configuration, machine or other settings, or its name
        does not end in .json.
    DataError
        If it cannot be read, or its folder cannot be written.
    """

    def __init__(self, path, about):
        self.path = Path(path)
        self._require_writable()
        lists = {"measurements": [], "exchanges": [], "results": []}
        self.content = {**about, **lists}
        if os.path.lexists(self.path):
            found = read_study(self.path)
            _require_same(self.path, found, about)
            self._go_on(found, about.get("refused", {}))

    def _go_on(self, found, refused):
        """Take the content of the file; it may lack strategies that come now."""
        self.content = found
        if refused:
            found["refused"] = {**found.get("refused", {}), **refused}

    def _require_writable(self):
        """Find out before hours of measuring whether the files can be written."""
        if self.path.suffix != ".json":
            raise ConfigError(
                f"--output {self.path}: expected a name that ends in .json; the .csv "
                "and the .html file beside it have the same name"
            )
        for suffix in (".json", ".csv", ".html"):
            path = self.path.with_suffix(suffix)
            if path.exists() and not path.is_file():
                raise DataError(f"--output {self.path}: {path} is no regular file")
        try:
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            raise DataError(
                f"--output {self.path}: the folder {self.path.parent} cannot be "
                f"written: {error.strerror}"
            ) from error

    @contextmanager
    def alone(self):
        """Let no other process measure for this file.

        Raises
        ------
        ConfigError
            If another one does.
        """
        folder, name = self.path.parent, f".{self.path.name}.lock"
        lock = lock_directory(folder, f"--output {self.path.name} in", name)
        try:
            if os.path.lexists(self.path):  # another process may have written since
                self._go_on(read_study(self.path), self.content.get("refused", {}))
            yield
        finally:
            unlock_directory(folder, lock, name)

    def find(self, case):
        """Return the measurement of a StudyCase, or None; one that failed is none."""
        key = dict(zip(KEY, case))
        for one in self.content["measurements"]:
            if all(one[name] == key[name] for name in KEY) and one["error"] is None:
                return one
        return None

    def add(self, case, found):
        """Add the measurement of a case, in place of one that failed; write the file.

        ``found`` has at least ``error``. Raises ConfigError if its model is another.
        """
        self._put(case, found)
        self.save()

    def _put(self, case, found):
        self._require_same_model(found)
        self.content.pop("predictions", None)  # of the measurements before
        key = dict(zip(KEY, case))
        kept = [
            one
            for one in self.content["measurements"]
            if not all(one[name] == key[name] for name in KEY)
        ]
        self.content["measurements"] = [*kept, {**key, **found}]

    def _require_same_model(self, found):
        """Raise ConfigError if rows of another file make another model."""
        for one in self.content["measurements"]:
            if one["error"] is not None or found["error"] is not None:
                continue
            if one["parameters"] != found["parameters"]:
                raise ConfigError(
                    f"{self.path}: its model has {one['parameters']:,} parameters, now "
                    f"{found['parameters']:,}: the files of the rows have changed; "
                    "choose another --output, or remove it"
                )

    def merge(self, path):
        """Add what another file measured and this study lacks; write the file.

        Returns
        -------
        list of StudyCase
            The cases in the other file, those that failed too.

        Raises
        ------
        ConfigError
            If it is of another configuration, machine or other settings.
        DataError
            If it cannot be read.
        """
        part = read_study(path)
        _require_same(path, part, self.content)
        for name in FIXED:
            if self.content[name] is None:
                self.content[name] = part[name]
        cases = [StudyCase(*(one[k] for k in KEY)) for one in part["measurements"]]
        for case, one in zip(cases, part["measurements"]):
            if self.find(case) is None:
                self._put(case, one)
        known = {one["ranks"] for one in self.content["exchanges"]}
        new = [one for one in part["exchanges"] if one["ranks"] not in known]
        self.add_exchanges(new)
        return cases

    def has_exchanges(self, n_ranks):
        """Return whether exchanges were measured on so many ranks."""
        return any(one["ranks"] == n_ranks for one in self.content["exchanges"])

    def add_predictions(self, grid):
        """Add the predictions that follow from the measurements; write the file."""
        self.content["predictions"] = grid
        self.save()

    def add_exchanges(self, found):
        """Add measured exchanges; write the file."""
        self.content["exchanges"] += found
        self.save()

    def save(self):
        """Write the file.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        text = json.dumps(self.content, indent=1, allow_nan=False) + "\n"
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def save_csv(self, path):
        """Write a line for each measurement: ``COLUMNS``, and the parts of a step."""
        parts = [f"{name}_s" for name in _part_names(self.content)]
        with replacing(path) as temporary:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([*COLUMNS, *parts])
                for one in self.content["measurements"]:
                    if one["error"] is None:
                        writer.writerow(_row(one, parts))


def settings_digest(text, overrides):
    """Return what tells configurations apart: the digest of a file and its overrides.
    """
    return hashlib.sha256("\0".join([text, *overrides]).encode()).hexdigest()


def read_study(path):
    """Return the content of the file of a study.

    Raises
    ------
    DataError
        If it cannot be read, or is not of this kind.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(f"{path}: not a study: expected the schema {SCHEMA!r}")
    try:
        require_study(content)
    except ValueError as error:
        raise DataError(
            f"{path}: not a whole study: {error} is missing or damaged; remove the "
            "file, and measure again"
        ) from error
    return content


def _finite(text):
    """Return a number of JSON, which has neither NaN nor infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _part_names(content):
    for one in content["measurements"]:
        if one["error"] is None:
            return list(one["parts_s"])
    return []


def _row(one, parts):
    own = {**one, "median_step_s": statistics.median(one["step_s"])}
    means_s = {name: statistics.fmean(s) for name, s in one["parts_s"].items()}
    own["samples_per_s"] = one["batch_size"] / sum(means_s.values())
    own |= {f"{name}_s": mean_s for name, mean_s in means_s.items()}
    return [own[name] for name in (*COLUMNS, *parts)]


def _require_same(path, found, about):
    """Raise ConfigError if the content of a file is not of the study ``about``."""
    for name in FIXED:
        own, other = about[name], found.get(name)
        if own is None or other is None or own == other:
            continue
        if name == "machine" and _is_alike(own, other):
            continue
        differ = "differ from those" if name.endswith("s") else "differs from that"
        raise ConfigError(
            f"{path}: its {name} {differ} of this study: "
            f"{_difference(other, own)}; choose another --output, or remove it"
        )


def _is_alike(own, other):
    """Return whether two machines differ only as nodes of one kind do: in kilobytes."""
    sizes = own.get("memory_bytes"), other.get("memory_bytes")
    if None in sizes or abs(sizes[0] - sizes[1]) > MEMORY_DIFFERS * max(sizes):
        return False
    return {**own, "memory_bytes": 0} == {**other, "memory_bytes": 0}


def _difference(before, now):
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before!r}, now {now!r}"
    names = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    return ", ".join(f"{k} {before.get(k)!r}, now {now.get(k)!r}" for k in names)
