"""Which values and tensors of two checkpoints differ, and by how much."""

import math

import numpy as np

from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.config import config as configuration
from pympi_train.flat.boxes import boxes_of
from pympi_train.paths import expanded
from pympi_train.runs import output
from pympi_train.runs.speech import in_columns

PIECE = 2**20  # elements of a tensor that a rank reads at once
TIMES = "progress.spent"  # seconds, which differ always


def compare_checkpoints(a, b, comm):
    """Return what differs between two checkpoints.

    Parameters
    ----------
    a, b : str
        Their folders.
    comm : MPI.Comm
        Each rank compares some pieces of the tensors.

    Returns
    -------
    dict
        same : bool, apart from the configuration.
        values, configuration : dict of dotted key to the two values; None where one
        lacks it. The configuration is read by rank 0.
        mismatches : dict of name to why two tensors cannot be compared.
        tensors : dict of name to shape, dtype, differing, largest_absolute and
        largest_relative, of those that differ.
        n_tensors : int, those compared.

    Raises
    ------
    DataError
        On every rank, if one of them is not whole.

    Notes
    -----
    Collective. Numbers are compared as numbers, NaN equals NaN. A relative difference
    is :math:`|a - b| / \\max(|a|, |b|)`.
    """
    with together(comm):
        a, b = expanded(a), expanded(b)
    one, two = read_checkpoint(a, comm), read_checkpoint(b, comm)
    both, mismatches = _matched(one.tensors(), two.tensors())
    found = np.zeros((len(both), 3))
    with together(comm):
        values = changes(one.state.values, two.state.values)
        values.pop(TIMES, None)
        settings = {}
        if comm.rank == 0:
            settings = changes(_settings(one), _settings(two))
        for row, box in _own_pieces(both, comm):
            x, y = (t[tuple(slice(*pair) for pair in box)] for t in both[row][1:])
            here = found[row]
            n, *largest = differences(x, y)
            here[0] += n
            here[1:] = np.maximum(here[1:], largest)
    counts = reduced(comm, found[:, 0])
    found = reduced(comm, found[:, 1:], op="MAX")
    tensors = {
        name: {
            "shape": list(x.shape),
            "dtype": x.dtype.name,
            "differing": int(n),
            "largest_absolute": float(absolute),
            "largest_relative": float(relative),
        }
        for (name, x, _), n, (absolute, relative) in zip(both, counts, found)
        if n
    }
    return {
        "same": not (values or mismatches or tensors),
        "values": values,
        "configuration": settings,
        "mismatches": mismatches,
        "tensors": tensors,
        "n_tensors": len(both),
    }


def _matched(one, two):
    """Return [(name, tensor, tensor)], and why others cannot be compared, by name."""
    both, mismatches = [], {}
    for name in sorted({*one, *two}):
        if name not in two or name not in one:
            which = "first" if name in one else "second"
            mismatches[name] = f"only in the {which}"
        elif one[name].shape != two[name].shape:
            mismatches[name] = f"shapes {one[name].shape} and {two[name].shape}"
        elif one[name].dtype != two[name].dtype:
            mismatches[name] = f"{one[name].dtype} and {two[name].dtype}"
        else:
            both.append((name, one[name], two[name]))
    return both, mismatches


def _own_pieces(both, comm):
    """Yield (row, box) of the pieces that this rank compares."""
    number = 0
    for row, (_, tensor, _) in enumerate(both):
        n = math.prod(tensor.shape)
        for start in range(0, n, PIECE):
            if number % comm.size == comm.rank:
                stop = min(start + PIECE, n)
                for box in boxes_of(tensor.shape, start, stop):
                    yield row, box
            number += 1


def differences(a, b):
    """Return how many elements differ, and the largest differences.

    Returns
    -------
    (int, float, float)
        The count, the largest absolute and the largest relative difference; infinite if
        one of two elements is NaN.
    """
    differs = (a != b) & ~((a != a) & (b != b))
    if not differs.any():
        return 0, 0.0, 0.0
    a, b = (np.asarray(x[differs], np.float64) for x in (a, b))
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
        relative = gap / np.maximum(np.abs(a), np.abs(b))
    gap[np.isnan(gap)] = relative[np.isnan(relative)] = np.inf
    return len(a), float(gap.max()), float(relative.max())


def changes(a, b):
    """Return {dotted key: [value in a, value in b]} of nested dicts that differ."""
    a, b = dict(_flat(a)), dict(_flat(b))
    found = {key: [a.get(key), b.get(key)] for key in sorted({*a, *b})}
    # By repr, for which NaN is like NaN.
    return {key: pair for key, pair in found.items() if repr(pair[0]) != repr(pair[1])}


def _flat(value, prefix=""):
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _settings(saved):
    """Return the configuration as nested dicts; empty if there is none."""
    text = saved.text(output.CONFIG)
    if text is None:
        return {}
    return configuration.parse(text, where=saved.path, literal_paths=True).to_dict()


def comparison_lines(found):
    """Return lines that describe what `compare_checkpoints` returned."""
    lines = []
    for kind, what in (("values", "value"), ("configuration", "config")):
        for key, (a, b) in found[kind].items():
            lines.append(f"{what:8} {key}: {a!r} -> {b!r}")
    for name, why in found["mismatches"].items():
        lines.append(f"tensor   {name}: {why}")
    tensors, n = found["tensors"], found["n_tensors"]
    if tensors:
        rows = [("tensor", "differing", "of", "largest abs.", "largest rel.", "")]
        for name, t in tensors.items():
            row = [name, f"{t['differing']:,}", f"{math.prod(t['shape']):,}"]
            row += [f"{t[f'largest_{kind}']:.3g}" for kind in ("absolute", "relative")]
            rows.append((*row, ""))
        lines += in_columns(rows)
    if found["same"]:
        return [*lines, f"the states are the same: {n:,} tensors and all values"]
    return [*lines, f"{len(tensors):,} of {n:,} tensors differ"]
