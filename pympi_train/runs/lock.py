"""A folder that one program at a time writes to: the lock file in it."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from pympi_train.errors import ConfigError

LOCK = ".lock"
LOCK_TRY_S = 0.5  # `pympi-train resize` holds the lock for an instant, to look at it


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
        file = open(Path(path) / name, "a")
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
