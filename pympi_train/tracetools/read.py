"""Reads traces of trainings, and says what is in them."""

import json
import os
from array import array
from typing import NamedTuple

import numpy as np

from pympi_train.checkpoint.durable import naming
from pympi_train.errors import MALFORMED, DataError
from pympi_train.runs.output import TRACE
from pympi_train.trace.chrome import CUT, SCHEMA
from pympi_train.trace.events import KINDS

LAST_STEP = 2**53
LAST_US = 1e15  # of a time, 30 years
MAX_LINE = 10_000  # characters; lines of this package have about 120


class Track(NamedTuple):
    """The spans of one rank of a file.

    Attributes
    ----------
    rank, node : int
    host : str
        Name of the node and its host.
    is_cut : bool
        Whether older spans were overwritten.
    kinds, steps : ndarray of int64
        Indices of ``KINDS``, and numbers of steps.
    names : ndarray of int64
        Equal for calls of one name.
    starts_s, ends_s : ndarray of float64
    flights : ndarray of float64, shape (m, 3)
        Step, start and end in seconds of each sum of a bucket during backward.
    """

    rank: int
    node: int
    host: str
    is_cut: bool
    kinds: np.ndarray
    steps: np.ndarray
    names: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    flights: np.ndarray


class _Rows:
    def __init__(self):
        self.kinds, self.steps, self.names = (array("q") for _ in range(3))
        self.starts_s, self.ends_s, self.flights = (array("d") for _ in range(3))
        self.node, self.host, self.is_cut = 0, "", False

    def track(self, rank):
        blocks = (self.kinds, self.steps, self.names, self.starts_s, self.ends_s)
        held = [np.array(block) for block in blocks]
        flights = np.array(self.flights).reshape(-1, 3)
        return Track(rank, self.node, self.host, self.is_cut, *held, flights)


def read_tracks(path):
    """Return (what the file tells of itself, its Tracks by rank).

    Parameters
    ----------
    path : path
        A file of `head_text` and `lane_text`.

    Returns
    -------
    about : dict
    tracks : list of Track

    Raises
    ------
    DataError
        If it is another kind of file, or incomplete.

    Notes
    -----
    The file is read line by line: 40 bytes of memory for each span.
    """
    rows, names = {}, {}
    with naming(path, "read"), open(path, encoding="utf-8", errors="replace") as file:
        about = _about(path, file.readline(MAX_LINE))
        number, is_whole = 1, False
        while line := file.readline(MAX_LINE):
            number += 1
            if line.startswith("]}"):
                is_whole = True
                break
            if not line.endswith("\n") and len(line) < MAX_LINE:
                break  # in the middle of a line
            try:
                _take(rows, names, _loaded(line.rstrip().rstrip(",")))
            except MALFORMED:
                raise DataError(
                    f"{path}, line {number}: expected an event of a trace, got "
                    f"{line[:60]!r}"
                ) from None
    if not is_whole:
        raise DataError(f"{path}: the end is missing: it was not written to the end")
    return about, [rows[rank].track(rank) for rank in sorted(rows)]


def _about(path, line):
    try:
        about = _loaded(line.rstrip() + "]}")["otherData"]
        is_known = about["schema"] == SCHEMA and about.get("every", 1) >= 1
        if is_known and 0 <= about.get("last_step", 0) < LAST_STEP:
            return about
    except MALFORMED:
        pass
    raise DataError(
        f"{path}: expected a trace that pympi-train wrote ({SCHEMA}), with one event "
        f"on each line; got {line[:60]!r}"
    )


def _loaded(text):
    """Return the value of JSON without NaN and infinity, which it does not have."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def _take(rows, names, event):
    found = rows.setdefault(int(event["tid"]), _Rows())
    kind = event["ph"]
    if kind == "M" and event["name"] == "process_name":
        found.node, found.host = int(event["pid"]), str(event["args"]["name"])
    elif kind == "i" and event["name"] == CUT:
        found.is_cut = True
    elif kind == "b":
        start_s, seconds = _times(event["ts"], event["args"]["us"])
        step = float(int(event["args"]["step"]))
        found.flights.extend((step, start_s, start_s + seconds))
    elif kind == "X" and event["cat"] != "step":
        start_s, seconds = _times(event["ts"], event["dur"])
        found.kinds.append(KINDS.index(event["cat"]))
        found.steps.append(int(event["args"]["step"]))
        found.names.append(names.setdefault(str(event["name"]), len(names)))
        found.starts_s.append(start_s)
        found.ends_s.append(start_s + seconds)


def _times(start_us, us):
    """Return both in seconds; raise ValueError for what is no time."""
    start_us, us = float(start_us), float(us)
    if not (abs(start_us) < LAST_US and 0 <= us < LAST_US):  # also NaN
        raise ValueError(start_us, us)
    return start_us * 1e-6, us * 1e-6


def find_trace(path):
    """Return the path of a trace file, given that of a run directory or of itself.

    Raises
    ------
    DataError
        If the run has no trace.
    """
    if not os.path.isdir(path):
        return str(path)
    path = os.path.join(path, TRACE)
    if not os.path.exists(path):
        raise DataError(
            f"{path}: is not there: the training was not traced; set [output] trace = "
            "true, or give --trace to train"
        )
    return path
