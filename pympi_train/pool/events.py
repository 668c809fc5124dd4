"""The log of a pool: one JSON object a line, appended by rank 0, read by anybody."""

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from pympi_train.checkpoint.durable import naming, sync_folder
from pympi_train.errors import MALFORMED, ConfigError, DataError
from pympi_train.pool.history import KILLED, replay
from pympi_train.runs.lock import is_locked, lock_directory, unlock_directory
from pympi_train.runs.output import finite

EVENTS, PROGRESS = "events.jsonl", "progress.json"
FRESH_S = 15.0  # longest time between two accounts of the progress
DURABLE = ("pool", "end", "close")  # events that are on the disk when `append` returns
_BEGIN = b'{"event": "'  # of every line


class EventLog:
    """Appends events to the log in a pool's directory; on rank 0 only.

    The directory is locked until ``close``, or until the process ends.

    Parameters
    ----------
    directory : path
        Created if absent.
    resume : bool
        Whether the pool may go on from the log of an earlier one. The end of one that
        was killed is added to its log.
    tell : callable, optional
        Is called as ``tell(event, history)`` after each event that was appended.

    Attributes
    ----------
    history : History
        What all events together say, those of earlier pools included.

    Raises
    ------
    ConfigError
        If the directory cannot be made, another pool writes to it, or it has the log of
        an earlier pool and ``resume`` is false.
    DataError
        If the file is not the log of a pool.
    """

    def __init__(self, directory, resume=False, tell=None):
        self.directory, self._tell = Path(directory), tell
        self.path = self.directory / EVENTS
        self._lock = self._file = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(self.directory, "pool directory")
            self._open(resume)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"pool directory {directory} cannot be made or written: "
                f"{error.strerror}; choose another"
            ) from error
        except BaseException:
            self.close()
            raise

    def _open(self, resume):
        events, n_bytes = parse_log(_content(self.path), self.path)
        if events and not resume:
            raise ConfigError(earlier_pool(self.directory))
        self.history = replay(events, self.path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(self.path, flags, 0o666)
        os.ftruncate(self._file, n_bytes)  # a torn last line
        sessions = self.history.sessions
        if sessions and sessions[-1].end_s is None:
            alive_s = max(self.history.last_s, read_progress(self.directory)[0])
            self.append("close", time_s=alive_s, status=KILLED)

    def begin(self, nodes):
        """Append the start of a pool; close the log if that fails.

        Parameters
        ----------
        nodes : list of int
            The node of each rank.

        Raises
        ------
        DataError
            As `append` does.
        """
        attempt = len(self.history.sessions) + 1
        try:
            self.append("pool", ranks=len(nodes), nodes=nodes, attempt=attempt)
        except BaseException:
            self.close()
            raise

    def append(self, event, **fields):
        """Append one event: a single write, which readers see whole or torn.

        Parameters
        ----------
        event : str
            Its kind: pool, submit, start, resize, end or close.
        **fields
            What `History` needs for it, and more. ``time_s`` is now by default.

        Raises
        ------
        DataError
            If it cannot be written, for example because the disk is full. The log is
            then as it was before.
        """
        whole = {"event": event, "time_s": fields.pop("time_s", time.time()), **fields}
        whole = json.loads(json.dumps(finite(whole)))  # tuples as lists, as readers see
        line = (json.dumps(whole) + "\n").encode()
        with naming(self.path):
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError(None, "only a part of the line was written")
                if event in DURABLE:
                    os.fsync(self._file)
                    if not size:
                        sync_folder(self.directory)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._file, size)
                raise
        self.history.add(whole)
        if self._tell is not None:
            self._tell(whole, self.history)

    def close(self):
        """Close the log, and let other pools write to the directory."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            unlock_directory(self.directory, self._lock)
            self._lock = None


def earlier_pool(directory):
    """Return the message on a directory that already holds a pool."""
    return (
        f"pool directory {directory}: holds an earlier pool; go on from it with "
        "--resume, or choose another directory"
    )


def _content(path):
    """Return the bytes of a file; none if it is absent."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def parse_log(data, where=EVENTS):
    """Return the events in the bytes of a log, and the number of bytes that they take.

    Parameters
    ----------
    data : bytes
    where : path
        Name of the file, for messages.

    Returns
    -------
    (list of dict, int)
        A torn last line, and zeros that a loss of power left behind the last event, are
        not counted.

    Raises
    ------
    DataError
        If a line before the last event is no event, or nothing looks like a log.
    """
    events, n_bytes, start, broken = [], 0, 0, None
    for number, line in enumerate(data.split(b"\n"), 1):
        stop = start + len(line) + 1
        event = _event(line) if stop <= len(data) else None  # else it is not complete
        if event is None:
            broken = broken or number
        elif broken is not None:
            raise DataError(f"{where}: line {broken} is no event of a pool")
        else:
            events.append(event)
            n_bytes = stop
        start = stop
    begin = data.strip(b"\0\n")[: len(_BEGIN)]
    if not events and begin != _BEGIN[: len(begin)]:
        raise DataError(f"{where}: expected the events of a pool, one JSON object each")
    return events, n_bytes


def _event(line):
    """Return the event of a complete line, or None."""
    try:
        event = json.loads(line)
        named = isinstance(event["event"], str)
        return event if named and math.isfinite(event["time_s"]) else None
    except MALFORMED:
        return None


def read_history(directory):
    """Return the `History` in a directory, where a pool may still run.

    Returns
    -------
    History
        Without sessions if no pool has begun there.

    Raises
    ------
    DataError
        If the log cannot be read, or is damaged.
    """
    path = Path(directory) / EVENTS
    with naming(path, "read"):
        events, _ = parse_log(_content(path), path)
    return replay(events, path)


def is_running(directory, history):
    """Return whether a pool still works in a directory, as far as can be seen.

    Locks may be known to their own node only, so a file written just now counts too.
    """
    if history.sessions[-1].status is not None:
        return False
    age_s = time.time() - read_progress(directory)[0]
    return is_locked(directory) or age_s < FRESH_S


def write_progress(directory, jobs):
    """Replace the file that says how far the running jobs are.

    It only informs, so an error is no reason to end a training, and nothing waits for
    the disk.

    Parameters
    ----------
    directory : path
    jobs : dict
        By name: step, steps, epoch, epochs, step_s, ranks.
    """
    path = Path(directory) / PROGRESS
    temporary = path.with_name(f".{PROGRESS}.tmp")  # one pool writes: it has the lock
    told = {"time_s": time.time(), "jobs": finite(jobs)}
    with suppress(OSError):
        temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def read_progress(directory):
    """Return what `write_progress` wrote last: its time, and jobs by name.

    Returns
    -------
    (float, dict)
        ``(0.0, {})`` if there is nothing that can be read.
    """
    try:
        found = json.loads((Path(directory) / PROGRESS).read_text(encoding="utf-8"))
        jobs = {name: dict(job) for name, job in found["jobs"].items()}
        return float(found["time_s"]), jobs
    except (OSError, *MALFORMED):
        return 0.0, {}
