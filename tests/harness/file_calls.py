"""Calls that change files, as Python makes them: recorded, or made to fail."""

import contextlib
import os
import time
from typing import NamedTuple

NAMES = ("open", "write", "fsync", "rename", "mkdir", "rmdir", "unlink")
UNKNOWN = ("fdatasync", "ftruncate", "link", "pwrite", "replace", "symlink", "writev")
UNKNOWN += ("pwritev", "remove", "sendfile", "copy_file_range", "truncate")


class Call(NamedTuple):
    """A call on a file below the watched folder.

    Attributes
    ----------
    name : str
    path : str
        Relative to the folder, or "." for the folder itself.
    arguments : tuple
    real : callable
        Makes the call, with ``arguments`` unless others are given.
    locate : callable
        Returns the relative path of another argument.
    """

    name: str
    path: str
    arguments: tuple
    real: object
    locate: object


@contextlib.contextmanager
def watched(root, observe):
    """In the body, hand each `Call` below ``root`` to ``observe``, which makes it.

    It replaces functions of ``os``: what is read by ``open`` is not seen, nor is what
    others write. AssertionError if a function is called that no proof knows.
    """
    root, files = os.path.realpath(root), {}
    real = {name: getattr(os, name) for name in (*NAMES, *UNKNOWN, "close")}

    def locate(path, folder=None):
        if folder is not None:
            path = os.path.join(root, files.get(folder, os.pardir), path)
        path = os.path.relpath(os.path.abspath(path), root)
        return None if path.startswith(os.pardir) else path

    def replaced(name):
        def call(*arguments, dir_fd=None, **others):
            def make(*changed):
                folder = {} if dir_fd is None else {"dir_fd": dir_fd}
                return real[name](*(changed or arguments), **folder, **others)

            if name in ("write", "fsync"):
                path = files.get(arguments[0])
            else:
                path = locate(arguments[0], dir_fd)
            if path is None:
                return make()
            assert name not in UNKNOWN, f"os.{name} is not known to the proofs"
            made = observe(Call(name, path, arguments, make, locate))
            if name == "open":
                files[made] = path
            return made

        return call

    def close(file):
        files.pop(file, None)
        return real["close"](file)

    try:
        for name in real:
            setattr(os, name, close if name == "close" else replaced(name))
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


class Recorder:
    """Observer that keeps the changes, in the form that `power_loss.Disk` replays.

    Attributes
    ----------
    events : list of (int, str, ...)
        Time in ns, name of the change, and what it needs. A change counts from its
        begin on, because it may reach the disk before the call returns; an fsync from
        its end on.
    """

    def __init__(self):
        self.events = []
        self._sizes = {}

    def mark(self, what):
        """Note that the program has told something to its user."""
        self.events.append((time.monotonic_ns(), "mark", what))

    def __call__(self, call):
        began = time.monotonic_ns()
        name, path, arguments = call.name, call.path, call.arguments
        if name == "open":
            is_new = arguments[1] & os.O_CREAT
            made = call.real()
            if is_new:
                assert arguments[1] & os.O_EXCL, f"{path}: not opened as a new file"
                self.events.append((began, "create", path))
            return made
        made = call.real()
        if name == "write":
            start = self._sizes.get(path, 0)
            self._sizes[path] = start + made
            data = bytes(memoryview(arguments[1])[:made])
            self.events.append((began, "write", path, start, data))
        elif name == "rename":
            new = call.locate(arguments[1])
            self.events.append((began, "rename", path, new))
        else:
            at = time.monotonic_ns() if name == "fsync" else began
            self.events.append((at, name, path))
        return made


class Fault:
    """Observer that lets calls fail.

    Parameters
    ----------
    names : collection of str
        Of the calls that count.
    number : int
        Which of them is the first that fails, from 1.
    error : int or "short"
        An errno; or "short" for writes of a part.
    lasting : bool
        Whether all later ones fail too.

    Attributes
    ----------
    hits : int
        Calls that have failed.
    """

    def __init__(self, names, number, error, lasting=False):
        self.hits = 0
        self._names, self._left = names, number
        self._error, self._lasting = error, lasting

    def __call__(self, call):
        if call.name in self._names:
            self._left -= 1
            if self._left == 0 or (self._left < 0 and self._lasting):
                self.hits += 1
                return self._fail(call)
        return call.real()

    def _fail(self, call):
        if self._error != "short":
            raise OSError(self._error, os.strerror(self._error), call.arguments[0])
        file, data = call.arguments
        return call.real(file, memoryview(data)[: -(-len(data) // 3)])
