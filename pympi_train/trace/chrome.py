"""Files of spans in the Chrome trace format, which Perfetto opens.

The format is that of [1]_, as one JSON object with one event on each line. A file can
thus be written rank by rank, and read line by line.

References
----------
.. [1] "Trace Event Format", Google, 2016.
"""

import json

import numpy as np

from pympi_train.trace.events import KINDS, PARTS

SCHEMA = "pympi-train/trace/1"
CUT = "older spans were overwritten"
END_OF_FILE = "\n]}\n"
PHASE_KINDS = [KINDS.index(k) for k in KINDS if k not in ("collective", "wait", *PARTS)]


def head_text(about):
    """Return the text before the first event; ``about`` is a dict of plain values."""
    told = json.dumps({"schema": SCHEMA, **about})
    return f'{{"displayTimeUnit": "ms", "otherData": {told}, "traceEvents": [\n'


def lane_text(spans, rank, node, host, role="", is_cut=False, flights=()):
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
    flights : ndarray of FLIGHT, optional
        Become asynchronous events, which may overlap spans.
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
    for bucket, step, start_s, end_s in map(np.void.item, flights):
        start, end = round(start_s * 1e9), round(end_s * 1e9)
        lines += _flight(f"rank {rank} bucket {bucket}", place, step, start, end)
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


def _flight(name, place, step, start, end):
    """Return two events; ``name`` is that of a track of its own in Perfetto."""
    about = f'"cat": "bucket", "name": "{name}", "id": "{name}", {place}'
    told = f'{{"step": {step}, "us": {_us(end - start)}}}'
    return (
        f'{{"ph": "b", {about}, "ts": {_us(start)}, "args": {told}}}',
        f'{{"ph": "e", {about}, "ts": {_us(end)}}}',
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
