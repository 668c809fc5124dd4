"""A model of a file system that loses power: which states a disk may be left in.

As ALICE [1]_ it takes apart each call into the smallest changes that can reach the disk
on their own, and assumes no order among them but that of fsync. This is less than ext4
and XFS promise, which write the changes of names in order:

* An fsync of a file makes its data and size durable, not its name.
* An fsync of a folder makes the names in it durable, not the data of its files.
* A rename is done or not, never half. It may be on the disk before all else.
* Data that are not durable may lack a tail, have blocks of zeros, or of foreign bytes.

References
----------
.. [1] T. S. Pillai et al., "All File Systems Are Not Created Equal: On the Complexity
   of Crafting Crash-Consistent Applications", OSDI 2014.
"""

import itertools
import os
import random
from typing import NamedTuple

BLOCK_BYTES = 512  # a disk writes a sector whole or not at all
ALL_SUBSETS = 6  # of so many changes of names


class Names(NamedTuple):
    """A change of names: (folder's number, name, number of what it names or None)."""

    changes: tuple


class Data(NamedTuple):
    """A write to the file of a number."""

    number: int
    start: int
    data: bytes


class Disk:
    """What is on the disk, and what was done since and may not be.

    Parameters
    ----------
    tree : dict of str to bytes or None
        What is durable at first: files by path, and None for folders.
    """

    def __init__(self, tree=None):
        self._files, self._durable, self._live = {}, {0: {}}, {0: {}}
        self._pending, self._n = [], 0
        for path in sorted(tree or {}):
            folder, name = self._place(path)
            number = self._new(tree[path] is None)
            self._durable[folder][name] = self._live[folder][name] = number
            if tree[path] is not None:
                self._files[number] = tree[path]

    def _new(self, is_folder):
        self._n += 1
        if is_folder:
            self._durable[self._n], self._live[self._n] = {}, {}
        else:
            self._files[self._n] = b""
        return self._n

    def _find(self, path):
        number = 0
        for name in path.split(os.sep) if path != os.curdir else ():
            number = self._live[number][name]
        return number

    def _place(self, path):
        folder, name = os.path.split(path)
        return self._find(folder or os.curdir), name

    def run(self, event):
        """Do a change that `file_calls.Recorder` has noted, without its time."""
        kind, path, *others = event
        if kind == "fsync":
            self._sync(self._find(path))
        elif kind == "write":
            self._pending.append(Data(self._find(path), *others))
        elif kind in ("create", "mkdir"):
            number = self._new(kind == "mkdir")
            self._rename((*self._place(path), number))
        elif kind in ("unlink", "rmdir"):
            self._rename((*self._place(path), None))
        elif kind == "rename":
            number = self._find(path)
            new = (*self._place(others[0]), number)
            self._rename((*self._place(path), None), new)
        else:
            raise ValueError(f"unknown change: {event}")

    def _rename(self, *changes):
        _apply(self._live, changes)
        self._pending.append(Names(changes))

    def _sync(self, number):
        left = []
        for change in self._pending:
            if isinstance(change, Data) and change.number == number:
                self._files[number] = _written(self._files[number], [change])
            elif isinstance(change, Names) and number in (c[0] for c in change.changes):
                _apply(self._durable, change.changes)
            else:
                left.append(change)
        self._pending = left

    def tree(self, names=None, contents=None):
        """Return paths and contents after some of what is pending; by default all."""
        if names is None:
            names = [c for c in self._pending if isinstance(c, Names)]
        if contents is None:
            contents = {n: full for n, (_, full) in self._torn_files().items()}
        folders = {number: dict(found) for number, found in self._durable.items()}
        for change in names:
            _apply(folders, change.changes)
        found = {}

        def walk(number, path):
            for name, other in folders[number].items():
                inner = os.path.join(path, name)
                if other in folders:
                    found[inner] = None
                    walk(other, inner)
                else:
                    found[inner] = contents.get(other, self._files[other])

        walk(0, "")
        return found

    def _torn_files(self):
        """Return (durable content, full content) of each file with pending data."""
        found = {}
        for change in self._pending:
            if isinstance(change, Data):
                old, full = found.get(change.number, (self._files[change.number],) * 2)
                found[change.number] = old, _written(full, [change])
        return found

    def states(self, seed, limit):
        """Yield trees that a loss of power may leave now, each once.

        Parameters
        ----------
        seed : int
        limit : int
            Maximum number of trees. First come all subsets of up to six changes of
            names, with all data and with none, then random ones.
        """
        files, names = self._torn_files(), self._names()
        full = {number: pair[1] for number, pair in files.items()}
        rng = random.Random(seed)
        choices = itertools.chain(
            ((chosen, full) for chosen in names),
            ((chosen, {}) for chosen in names),
            _random_choices(rng, names, files, 4 * limit),
        )
        seen = set()
        for chosen, contents in choices:
            if len(seen) == limit:
                return
            tree = self.tree(chosen, contents)
            key = frozenset(tree.items())
            if key not in seen:
                seen.add(key)
                yield tree

    def _names(self):
        """Return lists of changes of names that may be on the disk; first all."""
        every = [change for change in self._pending if isinstance(change, Names)]
        n = len(every)
        if n <= ALL_SUBSETS:
            masks = itertools.product((True, False), repeat=n)
            return [list(itertools.compress(every, mask)) for mask in masks]
        found = [every, []]
        for i in range(n):
            found += [every[:i], every[i:], [every[i]], every[:i] + every[i + 1 :]]
        return found


def _random_choices(rng, names, files, n):
    if not files:
        return
    for _ in range(n):
        torn = {number: _torn(rng, *pair) for number, pair in files.items()}
        yield rng.choice(names), torn


def _torn(rng, old, full):
    """Return what a file may hold of which only ``old`` is durable."""
    how = rng.choice(("full", "old", "end", "block's end", "zeros", "foreign", "mixed"))
    if how == "full" or len(old) == len(full):
        return full
    if how == "old":
        return old
    found = bytearray(full)
    if how == "end":
        return full[: rng.randrange(len(old), len(full))]
    starts = range(len(old) // BLOCK_BYTES * BLOCK_BYTES, len(full), BLOCK_BYTES)
    if how == "block's end":
        return full[: max(rng.choice(starts), len(old))]
    for start in starts:
        stop = min(start + BLOCK_BYTES, len(full))
        low = max(start, len(old))
        if rng.random() < 0.5:
            foreign = how == "foreign" or (how == "mixed" and rng.random() < 0.5)
            n = max(stop - low, 0)
            found[low:stop] = rng.randbytes(n) if foreign else bytes(n)
    return bytes(found)


def _apply(folders, changes):
    for folder, name, number in changes:
        if number is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = number


def _written(content, writes):
    found = bytearray(content)
    for write in writes:
        end = write.start + len(write.data)
        found.extend(bytes(max(end - len(found), 0)))
        found[write.start : end] = write.data
    return bytes(found)
