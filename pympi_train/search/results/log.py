"""What is kept of finished trainings: one JSON object a line, only ever appended."""

import fcntl
import json
import os
import zlib
from contextlib import suppress

from pympi_train.checkpoint.durable import naming
from pympi_train.errors import ConfigError, DataError
from pympi_train.pool.entry import FREE_SECTIONS
from pympi_train.pool.events import EVENTS
from pympi_train.runs.output import finite
from pympi_train.runs.recovery.same_data import what_differs
from pympi_train.search.plan import TRIALS

LOG = "trials.jsonl"
POOL = "pool"  # folder of the log of the ranks
ROWS = "rows"  # fingerprints, in the first line; later ones have those of new values
CRC = "crc"  # of the rest of a line: a digit that changed is no other result


class TrialLog:
    """The results of a search, by (overrides, fold, epochs); on rank 0.

    Parameters
    ----------
    plan : SearchPlan
    resume : bool
        Whether results of an earlier search in the directory are used.
    lanes : LaneChoice
        How trials are trained. An earlier search takes precedence over "auto".
    rows : dict of str to dict
        Fingerprints of the rows, as `checked_rows` returns them.

    Attributes
    ----------
    lanes : LaneChoice

    Raises
    ------
    ConfigError
        If an earlier search is there and is not to be resumed, or it was another one,
        or of other rows, or its trainings are there without its log, or another process
        is writing.
    DataError
        If the file cannot be read or written.

    Notes
    -----
    A last line that is cut, as a killed process leaves it, is removed. Results belong
    to values, not to numbers of trials: more of them may be asked for later. Each line
    has a CRC-32 of its record.
    """

    def __init__(self, plan, resume, lanes, rows):
        self._may_choose, self.lanes = plan.settings.lanes == "auto", lanes
        self.path = os.path.join(plan.directory, LOG)
        self._found: dict = {}
        self._rows: dict = {}  # of the earlier search
        with naming(self.path):
            os.makedirs(plan.directory, exist_ok=True)
            self._file = open(self.path, "a+", encoding="utf-8")
        try:
            self._lock()
            self._begin(_header(plan), resume, rows)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Close the file, which unlocks it."""
        self._file.close()

    def _lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"[output] directory: another search is writing to {self.path}; wait "
                "for its end or choose another directory"
            ) from None
        except OSError:  # the file system has no locks
            pass

    def _begin(self, header, resume, rows):
        with naming(self.path):
            raw = self._file.buffer
            raw.seek(0)
            whole, newline, _ = raw.read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        if lines and not resume:
            raise ConfigError(
                f"{self.path}: an earlier search is there; go on with it by --resume, "
                "remove its folder, or choose another [output] directory"
            )
        before = self._read(lines[0], 1) if lines else None
        for number, line in enumerate(lines[1:], 2):
            self._keep(self._read(line, number))
        if before is not None:
            _require_same_search(before, header, self.path)
            self._follow_lanes(before["lanes"])
            self._rows |= before.get(ROWS, {})
            self._require_same_rows(rows)
        else:
            self._require_no_trainings()
        with naming(self.path):
            self._file.truncate(len(whole + newline))
        if before is None:
            self._write({**header, "lanes": self.lanes.is_used, ROWS: rows})
        elif not self._rows.keys() >= rows.keys():
            self._write({ROWS: {**rows, **self._rows}})

    def _require_same_rows(self, rows):
        """Raise ConfigError if rows are not those of the earlier search."""
        for way in rows.keys() & self._rows.keys():
            where = f"the search of {self.path}"
            what = what_differs(self._rows[way], rows[way], where)
            if what is not None:
                raise ConfigError(
                    f"{rows[way]['name']}: {what}; resume with the same data, or "
                    "choose another [output] directory"
                )

    def _require_no_trainings(self):
        """Raise ConfigError if trainings are there whose configuration is not known."""
        pool = os.path.join(os.path.dirname(self.path), POOL)
        if os.path.exists(os.path.join(pool, EVENTS)):
            raise ConfigError(
                f"{pool}: an earlier search is there, but not its {LOG}, which has its "
                f"configuration: remove {POOL} and {TRIALS} too, or choose another "
                "[output] directory"
            )

    def _read(self, line, number):
        """Return the object of a line.

        Raises
        ------
        DataError
            If it is not what was written.
        """
        try:
            record = json.loads(line)
            digest = record.pop(CRC)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(self.path, number) from None
        if digest != _digest(record):
            raise _damaged(self.path, number)
        return record

    def _follow_lanes(self, before):
        """Train as the earlier search did, if that is possible."""
        if before == self.lanes.is_used:
            return
        if not self._may_choose or before:
            raise ConfigError(
                f"{self.path} has results of trainings {'in' if before else 'without'} "
                f"lanes, which are not the same: --lanes {'on' if before else 'off'} "
                f"goes on ({self.lanes.why}); or choose another [output] directory"
            )
        self.lanes = self.lanes._replace(is_used=False, why="as the search has begun")

    def _keep(self, record):
        if ROWS in record:
            self._rows |= record[ROWS]
            return
        key = tuple(record["set"]), record["fold"], record["epochs"]
        self._found[key] = record

    def find(self, trial, fold, epochs):
        """Return the record of a training, or None if it is to be trained.

        A training that failed is tried again; one that diverged would do so again.
        """
        found = self._found.get((trial.texts, fold, epochs))
        return None if found is None or found["status"] == "failed" else found

    def add(self, record):
        """Append a record, with "set", "fold", "epochs" and "status"."""
        self.add_all([record])

    def add_all(self, records):
        """Append several records at once."""
        for record in records:
            self._keep(record)
        self._write(*records)

    def _write(self, *records):
        records = [finite(record) for record in records]
        lines = [json.dumps(r | {CRC: _digest(r)}) + "\n" for r in records]
        with naming(self.path):
            self._file.write("".join(lines))
            self._file.flush()
            with suppress(OSError):  # a file system that cannot
                os.fsync(self._file.fileno())


def _digest(record):
    """Return the CRC-32 of a record without its own."""
    return zlib.crc32(json.dumps(record).encode())


def _damaged(path, number):
    cure = (
        f"remove line {number} alone, and what it says is trained again"
        if number > 1
        else "remove the folder, or choose another [output] directory"
    )
    return DataError(
        f"{path}, line {number}: damaged, or not the log of a search: {cure}"
    )


def _header(plan):
    sections = plan.base.to_dict()
    for name in FREE_SECTIONS:
        del sections[name]
    # A method with rungs sets the epochs; others have them in their configuration.
    return {"version": 1, "folds": plan.n_folds, "config": sections}


def _require_same_search(before, now, path):
    """Raise ConfigError if results of another configuration would be mixed in."""
    if not isinstance(before, dict) or before.get("version") != 1:
        raise DataError(f"{path}: not the log of a search")
    if before["folds"] != now["folds"]:
        raise ConfigError(
            f"--folds is {now['folds']}, but {path} has results of {before['folds']}: "
            "choose another [output] directory"
        )
    for section, keys in now["config"].items():
        then = before["config"].get(section, {})
        for key in sorted({*keys, *then}):
            if finite(keys.get(key)) != then.get(key):
                raise ConfigError(
                    f"[{section}] {key} is {keys.get(key)!r}, but was "
                    f"{then.get(key)!r} when the search of {path} began: resume "
                    "with the same, or choose another [output] directory"
                )
