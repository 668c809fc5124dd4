"""Finds the checkpoint from which a run goes on, and checks that it belongs to it."""

import dataclasses
import json
import os
from typing import NamedTuple

from pympi_train.checkpoint import store
from pympi_train.checkpoint.read import StoredState, read_checkpoint
from pympi_train.comm.checks import on_root, together
from pympi_train.comm.messages import bytes_of_root
from pympi_train.config import config as configuration
from pympi_train.errors import MALFORMED, ConfigError, DataError
from pympi_train.runs import output
from pympi_train.runs.earlier.files import read_run_config, read_run_result

NEWEST = "newest"
# Keys that may differ from those of the checkpoint, or that `fingerprint` covers.
FREE = {
    "train": (
        *("epochs", "patience", "target", "gradient_noise"),
        *("init", "backend", "micro_batch_size"),
    ),
    "optimizer": ("learning_rate", "tolerance", "clip_norm"),
    "parallel": None,
    "output": None,
    "checkpoint": None,
    "elastic": None,
    "search": None,
}
# Those of [data] that may not, as `fingerprint` does not tell their values apart.
SAME_DATA = (
    *("rows", "split", "split_column", "group", "fold", "oversample"),
    *("order", "order_window", "order_shards"),
)
# Keys whose value a run finds if none is given.
FOUND = ("vocabulary", "order_window", "order_shards")


class ResumePoint(NamedTuple):
    """What ``--resume`` has found.

    Attributes
    ----------
    saved : StoredState or None
        The checkpoint from which the run goes on; None: it starts afresh.
    config : Config or None
        Of the run that wrote it, as resolved.
    records : list of dict
        Of its epochs.
    remarks : sequence of str
        On newer checkpoints, which are not whole.
    damaged : tuple of str
        The names of these; on rank 0.
    """

    saved: StoredState | None = None
    config: configuration.Config | None = None
    records: list = []
    remarks: tuple = ()
    damaged: tuple = ()


def find(config, comm, resume):
    """Return the checkpoint to go on from, and why the training is already finished.

    Parameters
    ----------
    config : Config
    comm : MPI.Comm
    resume : str or ResumePoint
        ``NEWEST``, or the folder of a checkpoint.

    Returns
    -------
    (ResumePoint, dict or None)
        The dict is the result of a run that is finished.

    Raises
    ------
    DataError
        On every rank, if the checkpoint that is named is not whole.
    ConfigError
        On every rank, if its run was another one.

    Notes
    -----
    Collective.
    """
    remarks, damaged = [], []
    if isinstance(resume, ResumePoint):
        return resume, None
    if resume == NEWEST:
        result = on_root(comm, lambda: finished_result(config))
        if result is not None:
            return ResumePoint(), result
        saved, remarks = store.newest(config.checkpoints, comm)
        if saved is None:
            return ResumePoint(remarks=tuple(remarks)), None
        with together(comm):
            if comm.rank == 0 and remarks:
                paths = [e.path for e in store.entries(config.checkpoints)]
                damaged = map(os.path.basename, paths[-len(remarks) :])
    else:
        with together(comm):
            if comm.rank == 0:
                _require_one(resume)
        saved = read_checkpoint(resume, comm)
    text, lines = "", ""
    with together(comm):
        if comm.rank == 0:
            text = saved.text(output.CONFIG)
            lines = saved.text(output.METRICS)
            if text is None or lines is None:
                raise DataError(
                    f"{saved.path}: pympi-train train did not write it; load it with "
                    "Trainer.load"
                )
    text = bytes_of_root(comm, text.encode()).decode()
    lines = bytes_of_root(comm, lines.encode()).decode()
    with together(comm):
        before = configuration.parse(text, where=saved.path, literal_paths=True)
        _require_same(config, before, saved.path)
        records = [json.loads(line) for line in lines.splitlines()]
    return ResumePoint(saved, before, records, tuple(remarks), tuple(damaged)), None


def _require_one(path):
    """Raise DataError if a folder is no checkpoint, but has some."""
    if store.is_checkpoint(path):
        return
    inner = os.path.join(path, configuration.CHECKPOINTS)
    if saved := store.entries(path) or store.entries(inner):
        raise DataError(
            f"--resume {path}: it holds checkpoints: name one, such as "
            f"{saved[-1].path}; --resume alone takes the newest of [output] directory"
        )


def ending(found, config):
    """Return how the training ended that wrote a checkpoint, if there is no more to do.

    Parameters
    ----------
    found : ResumePoint
        Its ranks may have died between its last checkpoint and its result.
    config : Config

    Returns
    -------
    (str, dict) or None
        Why it ended, and the record of the epoch that it kept; None if the training
        goes on.

    Raises
    ------
    ConfigError
        If fewer epochs are asked for now than the training has had.
    """
    about, n_epochs = found.saved.about, config.train.epochs
    if "epoch" not in about:  # no checkpoint: other ranks have handed over their state
        return None
    reason, is_left = about.get("ended"), about["epoch"] < n_epochs
    if reason is None and not is_left:
        raise ConfigError(
            f"[train] epochs is {n_epochs}, but {about['epoch']} epochs were done when "
            f"{found.saved.path} was written: ask for more"
        )
    if reason is None or not _is_over(reason, is_left, config, found.config):
        return None
    return reason, about["kept"]


def _is_over(reason, is_left, config, before):
    """Return whether a training that ended for ``reason`` has no more to do now.

    ``is_left`` tells whether more epochs are asked for than were done.
    """
    if not is_left:
        return True
    if reason == "target":
        return config.train.target == before.train.target
    if reason == "gradient":
        return config.optimizer.tolerance >= before.optimizer.tolerance
    return reason != "epochs"


def finished_result(config):
    """Return the result of the finished run in the run directory, or None.

    Raises
    ------
    DataError
        If its files cannot be read.
    ConfigError
        If its run was another one.
    """
    folder = config.output.directory
    result = read_run_result(folder)
    if result is None:
        return None
    try:
        reason, is_left = result["ended"], result["epochs"] < config.train.epochs
    except MALFORMED as error:
        raise DataError(f"{folder}: the result cannot be read: {error}") from error
    if reason == "epochs" and is_left:
        return None
    before = read_run_config(folder)
    if before is None:
        raise DataError(f"{folder}: has a result, but no {output.CONFIG}")
    _require_same(config, before, folder)
    return result if _is_over(reason, is_left, config, before) else None


def _require_same(config, before, path):
    """Raise ConfigError if a key that determines the steps has another value now."""
    now, then = config.to_dict(), before.to_dict()
    for section in now:
        free = FREE.get(section, ())
        if free is None:
            continue
        keys = {*now[section], *then[section]} - {*free}
        for key in sorted(keys & {*SAME_DATA} if section == "data" else keys):
            new, old = now[section].get(key), then[section].get(key)
            if new != old and not (new is None and key in FOUND):
                raise ConfigError(
                    f"[{section}] {key} is {new!r}, but was {old!r} when {path} was "
                    "written: resume with the same, or start afresh without --resume"
                )


def is_same(config, before):
    """Return whether a run with ``before`` has all settings that determine its steps.

    Those that `find` lets differ are among them. ``before`` has values for "auto".
    """
    now, then = config.to_dict(), before.to_dict()
    return all(
        value in ("auto", then[section].get(key)) or (value is None and key in FOUND)
        for section, values in now.items()
        if FREE.get(section, ()) is not None
        for key, value in values.items()
    )


def with_choices(config, found, comm):
    """Return ``config`` with the choices for "auto" that the earlier run has made.

    Choices between ways to exchange hold for the number of ranks that made them.
    """
    before = found.config
    changes = {}
    if config.train.backend == "auto" and before.train.backend != "cuda":
        changes["train"] = dataclasses.replace(
            config.train, backend=before.train.backend
        )
    for name in ("data", "parallel"):
        if name == "parallel" and found.saved.about.get("ranks") != comm.size:
            continue
        now, then = getattr(config, name), getattr(before, name)
        keys = ("order_window", "order_shards") if name == "data" else _autos(now)
        chosen = {
            key: getattr(then, key)
            for key in keys
            if getattr(now, key) in (None, "auto")
        }
        changes[name] = dataclasses.replace(now, **chosen)
    return dataclasses.replace(config, **changes)


def _autos(section):
    return [
        f.name
        for f in dataclasses.fields(section)
        if getattr(section, f.name) == "auto"
    ]
