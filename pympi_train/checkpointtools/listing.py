"""The checkpoints of a run: when each was written, how good it is, whether whole."""

import json
import os
import time

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.durable import naming
from pympi_train.checkpoint.read import check_size, lazily_read, manifest_content
from pympi_train.checkpointtools.found import find_checkpoints, size_text
from pympi_train.comm.checks import together
from pympi_train.errors import MALFORMED, DataError
from pympi_train.runs import output
from pympi_train.runs.speech import in_columns


def list_checkpoints(path, comm):
    """Return what the manifests of checkpoints say.

    Parameters
    ----------
    path : str
        A run directory, a folder of checkpoints, or a checkpoint.
    comm : MPI.Comm

    Returns
    -------
    dict or None
        On rank 0: "checkpoints", a list of dicts, the oldest first: path, name, step,
        epoch, written_s (since 1970), bytes, metric (dict of name and value, or None),
        is_best, is_newest, problem (None: every file is there and has its size).

    Raises
    ------
    DataError
        On every rank, if there is no checkpoint.

    Notes
    -----
    Collective. Hashes are not checked: `verify_checkpoints` does that.
    """
    found = None
    with together(comm):
        if comm.rank == 0:
            entries = [_entry(p) for p in find_checkpoints(path)]
            # Without those that a training has removed meanwhile.
            entries = [e for e in entries if os.path.lexists(e["path"])]
            found = {"checkpoints": entries}
            _mark(entries)
    return found


def _entry(path):
    """Return the facts on one checkpoint."""
    found = {"path": path, "name": os.path.basename(path)}
    keys = ("step", "epoch", "written_s", "bytes", "metric", "best", "problem")
    found |= dict.fromkeys(keys)
    try:
        content = manifest_content(path)
        saved, files = lazily_read(path, content), content["files"]
        about, progress = saved.about, saved.state.values.get("progress", {})
        n_bytes = sum(entry["n_bytes"] for entry in files.values())
        found["bytes"] = n_bytes + len(manifest.file_bytes(content))
        written_s = about.get("written_s") or _changed_s(path)
        found |= {"written_s": written_s, "best": about.get("best")}
        found |= {"step": progress.get("steps"), "epoch": progress.get("epoch")}
        for name, entry in files.items():
            check_size(os.path.join(path, name), entry)
        if not progress.get("batch"):  # else the last record is of earlier parameters
            found["metric"] = _metric(saved.text(output.METRICS), about.get("monitor"))
    except DataError as error:
        found["problem"] = str(error)
    return found


def _changed_s(path):
    """Return when a checkpoint was written, if it does not say so itself."""
    with naming(path, "read"):
        return os.path.getmtime(os.path.join(path, manifest.NAME))


def _metric(lines, name):
    if not lines or name is None:
        return None
    try:
        value = json.loads(lines.splitlines()[-1]).get(name)
    except MALFORMED:
        return None
    return None if value is None else {"name": name, "value": value}


def _mark(entries):
    """Mark the newest of the whole checkpoints, and the one that it calls the best."""
    whole = [entry for entry in entries if entry["problem"] is None]
    best = (whole[-1]["best"] or {}).get("name") if whole else None
    for entry in entries:
        del entry["best"]
        entry["is_newest"] = bool(whole) and entry is whole[-1]
        entry["is_best"] = entry["name"] == best


def listing_lines(found):
    """Return the lines of a table of what `list_checkpoints` returned."""
    rows = [("name", "step", "epoch", "written", "size", "metric", "")]
    for entry in found["checkpoints"]:
        metric, marks = entry["metric"], []
        marks += ["best"] * entry["is_best"] + ["newest"] * entry["is_newest"]
        if entry["problem"] is not None:
            marks.append(f"not whole: {entry['problem']}")
        row = [entry["name"], _number(entry["step"]), _number(entry["epoch"])]
        row += [time_text(entry["written_s"])]
        row += ["" if entry["bytes"] is None else size_text(entry["bytes"])]
        row += ["" if metric is None else f"{metric['name']} {metric['value']:.6g}"]
        rows.append((*row, ", ".join(marks)))
    return in_columns(rows)


def _number(value):
    return "" if value is None else f"{value:,}"


def time_text(seconds):
    """Return a time since 1970 as local date and time; "" for None."""
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
