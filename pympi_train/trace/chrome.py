"""Files of spans in the Chrome trace format, which Perfetto opens.

The format is that of [1]_, as one JSON object with one event on each line. A file can
thus be written rank by rank, and read line by line.

References
----------
.. [1] "Trace Event Format", Google, 2016.
"""

import json
from array import array
from typing import NamedTuple

import numpy as np

from pympi_train.errors import DataError
from pympi_train.trace.events import KINDS, PARTS

SCHEMA = "pympi-train/trace/1"
CUT = "older spans were overwritten"
END_OF_FILE = "\n]}\n"
MAX_LINE = 10_000  # characters; lines of this package have about 120
PHASE_KINDS = [KINDS.index(k) for k in KINDS if k not in ("collective", "wait", *PARTS)]


def head_text(about):
    """Return the text before the first event; ``about`` is a dict of plain values."""
    told = json.dumps({"schema": SCHEMA, **about})
    return f'{{"displayTimeUnit": "ms", "otherData": {told}, "traceEvents": [\n'


def lane_text(spans, rank, node, host, role="", is_cut=False):
    """Return the events of one rank, one a line, without a comma after the last.

    Parameters
    ----------
    spans : ndarray of SPAN
        In order; times in seconds of the common clock, at least 0.
    rank, node : int
        Become "tid" and "pid".
    host : str
        Name of the node.
    role : str
        What the rank is, if not one with rows.
    is_cut : bool
        Whether older spans were overwritten.
    """
    place = f'"pid": {node}, "tid": {rank}'
    name = f"rank {rank} ({role})" if role else f"rank {rank}"
    lines = [
        _named("process_name", place, f"node {node} ({host})"),
        _named("thread_name", place, name),
        f'{{"ph": "M", "name": "thread_sort_index", {place}, '
        f'"args": {{"sort_index": {rank}}}}}',
    ]
    starts, ends = (np.round(spans[t] * 1e9).astype(int) for t in ("start_s", "end_s"))
    if is_cut and len(spans):
        ts = _us(int(starts[0]))
        lines.append(f'{{"ph": "i", "s": "t", "name": "{CUT}", {place}, "ts": {ts}}}')
    parents = _steps(spans["kind"], spans["step"], starts, ends)
    for at, kind, name, step, start, end in zip(
        range(len(spans)),
        spans["kind"].tolist(),
        spans["name"].tolist(),
        spans["step"].tolist(),
        starts.tolist(),
        ends.tolist(),
    ):
        if at in parents:
            lines.append(_event("step", f"step {step}", place, step, *parents[at]))
        lines.append(_event(KINDS[kind], name, place, step, start, end))
    return ",\n".join(lines)


def _named(what, place, name):
    told = json.dumps(name)
    return f'{{"ph": "M", "name": "{what}", {place}, "args": {{"name": {told}}}}}'


def _us(nanoseconds):
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _event(category, name, place, step, start, end):
    return (
        f'{{"ph": "X", "cat": "{category}", "name": "{name}", {place}, '
        f'"ts": {_us(start)}, "dur": {_us(end - start)}, "args": {{"step": {step}}}}}'
    )


def _steps(kinds, steps, starts, ends):
    """Return {index of the first span: (start, end)} of each step.

    A step lasts from its first to its last phase; the calls between two steps, as for
    metrics, are in none.
    """
    is_phase = np.isin(kinds, PHASE_KINDS)
    found = np.flatnonzero(is_phase)
    if not found.size:
        return {}
    first = np.flatnonzero(np.r_[True, np.diff(steps[found]) != 0])
    last = np.r_[first[1:], found.size] - 1
    return {
        int(found[a]): (int(starts[found[a]]), int(ends[found[b]]))
        for a, b in zip(first, last)
    }


class Lane(NamedTuple):
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


class _Rows:
    def __init__(self):
        self.kinds, self.steps, self.names = (array("q") for _ in range(3))
        self.starts_s, self.ends_s = array("d"), array("d")
        self.node, self.host, self.is_cut = 0, "", False

    def lane(self, rank):
        blocks = (self.kinds, self.steps, self.names, self.starts_s, self.ends_s)
        held = [np.array(block) for block in blocks]
        return Lane(rank, self.node, self.host, self.is_cut, *held)


def read_lanes(path):
    """Return (what the file tells of itself, its Lanes by rank).

    Parameters
    ----------
    path : path
        A file of `head_text` and `lane_text`.

    Returns
    -------
    about : dict
    lanes : list of Lane

    Raises
    ------
    DataError
        If it is another kind of file, or incomplete.

    Notes
    -----
    The file is read line by line: 40 bytes of memory for each span.
    """
    rows, names = {}, {}
    with open(path, encoding="utf-8") as file:
        about = _about(path, file.readline(MAX_LINE))
        number, is_whole = 1, False
        while line := file.readline(MAX_LINE):
            number += 1
            if line.startswith("]}"):
                is_whole = True
                break
            try:
                _take(rows, names, json.loads(line.rstrip().rstrip(",")))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                raise DataError(
                    f"{path}, line {number}: expected an event of a trace, got "
                    f"{line[:60]!r}"
                ) from None
    if not is_whole:
        raise DataError(f"{path}: the end is missing: it was not written to the end")
    return about, [rows[rank].lane(rank) for rank in sorted(rows)]


def _about(path, line):
    try:
        about = json.loads(line.rstrip() + "]}")["otherData"]
        if about["schema"] == SCHEMA:
            return about
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path}: expected a trace that pympi-train wrote ({SCHEMA}), with one event "
        f"on each line; got {line[:60]!r}"
    )


def _take(rows, names, event):
    found = rows.setdefault(int(event["tid"]), _Rows())
    kind = event["ph"]
    if kind == "M" and event["name"] == "process_name":
        found.node, found.host = int(event["pid"]), str(event["args"]["name"])
    elif kind == "i" and event["name"] == CUT:
        found.is_cut = True
    elif kind == "X" and event["cat"] != "step":
        start_s, seconds = float(event["ts"]) * 1e-6, float(event["dur"]) * 1e-6
        found.kinds.append(KINDS.index(event["cat"]))
        found.steps.append(int(event["args"]["step"]))
        found.names.append(names.setdefault(str(event["name"]), len(names)))
        found.starts_s.append(start_s)
        found.ends_s.append(start_s + seconds)
