"""A run that writes checkpoints, all states that a crash may leave, and their check."""

import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
from file_calls import Recorder, watched
from power_loss import Disk

from pympi_train.checkpoint import shares, store
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.checkpoint.write import Writing
from pympi_train.flat.state import Region, State

DIRECTORY = os.path.join("run", "checkpoints")
STEPS = (10, 20, 30)
SHAPES = {"params/w": (60, 5), "optimizer/m": (60, 5), "params/b": (5,)}


def state_at(step):
    """Return the State at a step: all numbers in it depend on the step."""
    state = State({"step": step, "progress": {"epoch": step // 10, "loss": 1 / step}})
    state.blocks = {"params": {}, "optimizer": {}}
    for i, (name, shape) in enumerate(SHAPES.items()):
        array = np.random.default_rng([step, i]).random(shape)
        box = tuple((0, n) for n in shape)
        state.regions[name] = [Region(shape, box, array)]
        state.blocks[name.split("/")[0]][name] = None
    return state


def save(directory, step, comm, by_thread=False, done=None):
    """Write the checkpoint of a step; return its path. Collective.

    ``done`` is called on rank 0 when it is whole.
    """
    path = None
    if comm.rank == 0:
        path = store.next_path(directory, step)
    path = comm.bcast(path, root=0)
    lines = "".join(f'{{"epoch": {i}}}\n' for i in range(step // 10))
    texts = {"config.toml": "[train]\nepochs = 9\n", "metrics.jsonl": lines}
    how = {"about": {"step": step}, "texts": texts, "done": done}
    work = Writing(state_at(step), path, comm, **how)
    if by_thread:
        work.start()
        work.poll()
    else:
        work.write()
    work.finish()
    return path


def loaded_step(found):
    """Return the step of a StoredState; AssertionError if not all of it is of that."""
    step = found.about["step"]
    want = state_at(step)
    assert found.state.values == want.values
    assert found.state.regions.keys() == want.regions.keys()
    for name, (region,) in want.regions.items():
        out = np.full(region.shape, np.nan)
        found.state.read(name, region.shape, region.box, out)
        assert (out == region.array).all(), name
    assert found.text("metrics.jsonl").count("\n") == step // 10
    return step


def run(root, comm, tell, by_thread=False):
    """Write three checkpoints, of which the newest and the best stay. Collective.

    Parameters
    ----------
    root : path
        An empty folder.
    comm : MPI.Comm
    tell : callable
        Called with the step of each checkpoint that was written.
    by_thread : bool
        Whether threads write the files.
    """
    directory = os.path.join(root, DIRECTORY)

    def prune():
        store.prune(directory, 1, [f"000001-step-{STEPS[0]}"])

    with mock.patch.object(shares, "LEAST_BYTES", 64):  # all ranks write
        if comm.rank == 0:
            os.mkdir(os.path.join(root, "run"))
        for step in STEPS:
            save(directory, step, comm, by_thread, prune)
            tell(step)


def record(root, comm, by_thread=False):
    """Return the calls of `run`.

    Returns
    -------
    list of tuple
        Those of all ranks in the order of time, without the times; on rank 0. A "mark"
        says that the checkpoint of a step was written.

    Notes
    -----
    Collective.
    """
    recorder = Recorder()
    with watched(root, recorder):
        run(root, comm, recorder.mark, by_thread)
    comm.Barrier()
    calls = comm.gather(recorder.events, root=0)
    if comm.rank != 0:
        return None
    events = [event[1:] for event in sorted(sum(calls, []), key=lambda e: e[0])]
    disk = Disk()
    for event in events:
        if event[0] != "mark":
            disk.run(event)
    # Whatever was written past the recorder would be missing.
    assert disk.tree() == tree_of(root), "not all changes were recorded"
    return events


def tree_of(root):
    """Return the files below a folder by path; None for folders."""
    root = Path(root)
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


def require_step(found, told, where):
    """Raise AssertionError unless the last checkpoint was found, or the next one."""
    assert found in (told, told + 10), f"{where}: step {told} written, {found} found"


class Checker:
    """Lays out crash states in a folder, and loads the newest checkpoint of each.

    Attributes
    ----------
    n_states : int
        Different ones that were checked.
    n_visible : int
        Different ones, but for folders with hidden names, which no reader looks at.
    """

    def __init__(self, folder, comm):
        self.n_states = self.n_visible = 0
        self._folder, self._comm = str(folder), comm
        self._tree, self._steps, self._seen, self._names = {}, {}, set(), set()

    def check(self, events, limit):
        """Check up to ``limit`` states before each of the calls, and after the last."""
        disk, told = Disk(), 0
        for i, event in enumerate([*events, None]):
            for tree in disk.states(i, limit):
                self._check(tree, told, f"before call {i}, {event and event[:3]}")
            if event is not None and event[0] == "mark":
                told = max(told, event[1])
            elif event is not None:
                disk.run(event)

    def _check(self, tree, told, where):
        key = frozenset(tree.items())
        self.n_states += key not in self._seen
        self._seen.add(key)
        visible = frozenset(item for item in key if "/." not in item[0])
        if visible not in self._steps:
            self.n_visible += 1
            self._lay_out(tree)
            self._steps[visible] = self.newest_step(where)
        names = frozenset(tree)
        if names not in self._names:
            self._names.add(names)
            self._lay_out(tree)
            self._go_on(where)
        require_step(self._steps[visible], told, where)

    def _lay_out(self, tree):
        """Make the folder's content that of a tree, starting from the last one."""
        for path in sorted(self._tree.keys() - tree.keys(), reverse=True):
            full = os.path.join(self._folder, path)
            os.rmdir(full) if self._tree[path] is None else os.unlink(full)
        for path in sorted(tree):
            full, content = os.path.join(self._folder, path), tree[path]
            if path not in self._tree and content is None:
                os.mkdir(full)
            elif content is not None and self._tree.get(path) != content:
                with open(full, "wb") as file:
                    file.write(content)
        self._tree = tree

    def newest_step(self, where):
        """Return the step of the newest checkpoint in the folder, or 0; check all."""
        directory = os.path.join(self._folder, DIRECTORY)
        found, remarks = store.newest(directory, self._comm)
        assert remarks == [], f"{where}: {remarks}"
        steps = [
            loaded_step(read_checkpoint(entry.path, self._comm))
            for entry in store.entries(directory)
        ]
        if found is None:
            return 0
        assert steps[-1] == loaded_step(found) == max(steps), where
        assert steps[0] == STEPS[0], f"{where}: the best is lost, {steps}"
        return steps[-1]

    def _go_on(self, where):
        """The next run writes a checkpoint, and removes what was left."""
        directory = os.path.join(self._folder, DIRECTORY)
        try:
            with mock.patch("os.fsync"):
                save(directory, 90, self._comm)
                store.prune(directory, 1)
            assert len(os.listdir(directory)) == 1, where
            found, _ = store.newest(directory, self._comm)
            assert loaded_step(found) == 90, where
        finally:
            shutil.rmtree(self._folder)
            os.mkdir(self._folder)
            self._tree = {}
