"""What a training on some ranks leaves to the ranks that go on when others die."""

import json
import math
from hashlib import blake2b

import numpy as np

from pympi_train.checkpoint.manifest import json_values, values_of
from pympi_train.checkpoint.read import StoredState
from pympi_train.comm.collectives import broadcast, reduced
from pympi_train.comm.messages import bytes_of_root
from pympi_train.config import config as configuration
from pympi_train.flat.state import Region, State
from pympi_train.runs import output
from pympi_train.runs.recovery.resume import ResumePoint
from pympi_train.train.saving import replica_of


class Attempt:
    """A training on some ranks, as far as it has come.

    Parameters
    ----------
    previous : Attempt, optional
        That on more ranks, which is forgotten when this one begins.

    Attributes
    ----------
    has_begun, has_saved : bool
        Whether the run directory was this run's, and whether this run has written a
        checkpoint, in this attempt or an earlier one.
    """

    def __init__(self, previous=None):
        self._previous = previous
        self.has_begun = previous is not None and previous.has_begun
        self._has_saved = previous is not None and previous.has_saved
        self._trainer = self._saver = None

    @property
    def has_saved(self):
        has_saved = self._saver is not None and self._saver.has_saved
        return self._has_saved or has_saved

    def begin(self, trainer, saver, config, about, records):
        """Note what trains, once the run directory is this run's.

        Parameters
        ----------
        trainer : Trainer
        saver : Checkpoints
        config : Config
            As resolved.
        about : dict
            Plain values for each checkpoint.
        records : list of dict
            Those of the epochs so far.
        """
        self._trainer, self._saver, self.has_begun = trainer, saver, True
        self._config, self._about, self._records = config, about, list(records)
        self._steps, self._previous = trainer.steps, None

    def add_step(self):
        """Note that a step is complete."""
        self._steps = self._trainer.steps

    def add_record(self, record):
        """Note that an epoch is complete."""
        self._records.append(record)

    def abandon(self):
        """Wait for threads that write a checkpoint. Not collective."""
        if self._saver is not None:
            self._saver.abandon()

    def replica(self):
        """Return (progress, State), or (-1, None) if this rank has no whole state.

        The progress is an integer that grows with the steps and epochs done. Not
        collective.
        """
        if self._trainer is None:
            return (-1, None) if self._previous is None else self._previous.replica()
        trainer, state = self._trainer, None
        # Otherwise a rank has died between an update and the notes about it.
        if (self._steps, len(self._records)) == (trainer.steps, trainer.epoch):
            state = replica_of(trainer)
        if state is None:
            return -1, None
        return 2 * trainer.steps + (trainer.progress.batch == 0), state

    def header(self, state):
        """Return what `resume_point` needs beside the arrays of a State, as bytes."""
        if self._trainer is None:
            return self._previous.header(state)
        regions = state.regions.items()
        told = {
            "values": json_values(state.values),
            "about": json_values({**self._about, "best": self._saver.best}),
            "records": json_values(self._records),
            "config": output.toml(self._config),
            "regions": [
                [name, r.shape, r.box, r.array.dtype.str]
                for name, several in regions
                for r in several
            ],
        }
        return json.dumps(told).encode()


def resume_point(attempt, comm):
    """Return the ResumePoint of a state that ranks have whole, or None.

    Parameters
    ----------
    attempt : Attempt
        In which ranks have died.
    comm : MPI.Comm
        Of the ranks that are left.

    Notes
    -----
    Collective. One rank broadcasts its state: all ranks hold a second one for a while.

    The oldest state is taken, at most a step older than the others, and only if all
    ranks that have it agree on its bits: what a rank has received while another one
    died is not trusted (`survivors.require_alive`).
    """
    progress, state = attempt.replica()
    mine = progress if progress >= 0 else math.inf
    (oldest,) = reduced(comm, [mine], op="MIN")
    if oldest == math.inf:
        return None
    takes_part = progress == oldest
    mine = [_digest(state), comm.rank] if takes_part else [math.inf, math.inf]
    least, root = reduced(comm, mine, op="MIN")
    (most,) = reduced(comm, mine[:1] if takes_part else [-math.inf], op="MAX")
    if least != most:
        return None
    root = int(root)
    data = attempt.header(state) if comm.rank == root else b""
    told = json.loads(bytes_of_root(comm, data, root))
    found = State(values_of(told["values"]))
    blocks = [] if comm.rank != root else list(_arrays(state))
    for i, (name, shape, box, dtype) in enumerate(told["regions"]):
        box = tuple(map(tuple, box))
        if comm.rank == root:
            array = np.ascontiguousarray(blocks[i])
        else:
            array = np.empty([high - low for low, high in box], dtype)
        broadcast(comm, array.reshape(-1), root)
        region = Region(tuple(shape), box, array)
        found.regions.setdefault(name, []).append(region)
    path = f"the state of rank {root} of those that are left"
    saved = StoredState(path, found, values_of(told["about"]), {})
    before = configuration.parse(told["config"], where=path, literal_paths=True)
    return ResumePoint(saved, before, values_of(told["records"]))


def _digest(state):
    """Return 52 bits of a hash of all arrays, as a float."""
    found = blake2b(digest_size=8)
    for array in _arrays(state):
        found.update(np.ascontiguousarray(array))
    return float(int.from_bytes(found.digest(), "little") >> 12)


def _arrays(state):
    for regions in state.regions.values():
        for region in regions:
            yield region.array
