"""Whether a training that goes on has the rows of its checkpoint."""

import json
import math

import numpy as np

from pympi_train.checkpoint.durable import new_hash
from pympi_train.comm.checks import together
from pympi_train.errors import ConfigError
from pympi_train.runs.schema_file import plain_schema

ROUNDING = 1e-6  # by which sums of means and scales may differ


def fingerprint(data):
    """Return plain values that differ if the rows of a training are others.

    Parameters
    ----------
    data : LoadedData

    Notes
    -----
    Means and scales depend on the number of ranks by rounding. They are no part of the
    hash, and compared by two sums instead.
    """
    floats, counts = [], data.class_counts
    plain = _without_floats(plain_schema(data.schema), floats)
    held = data.validation.n if data.validation is not None else 0
    floats = np.array(floats)
    places = np.arange(1, len(floats) + 1) / max(len(floats), 1)  # tells an exchange
    return {
        "rows": data.train.n,
        "validation_rows": held,
        "schema": _digest(json.dumps(plain, sort_keys=True).encode()),
        "classes": None if counts is None else _digest(counts.astype("<i8").tobytes()),
        "scaling": [float(floats @ places), float(abs(floats).sum())],
    }


def _digest(data):
    found = new_hash()
    found.update(data)
    return found.hexdigest()


def _without_floats(plain, floats):
    """Return JSON types with None for each float, which is appended to a list."""
    if isinstance(plain, dict):
        return {key: _without_floats(value, floats) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_without_floats(value, floats) for value in plain]
    if isinstance(plain, float):
        floats.append(plain if math.isfinite(plain) else 0.0)
        return None
    return plain


def require_same_data(found, own, comm):
    """Raise ConfigError on every rank if the rows are not those of the checkpoint.

    ``own`` is the `fingerprint`; rank 0's counts. Collective.
    """
    names = {
        "rows": "training rows",
        "validation_rows": "validation rows",
        "schema": "features, labels or scaling",
        "classes": "numbers of training rows of each class",
    }
    with together(comm):
        if comm.rank != 0:
            return
        before = found.saved.about.get("data", {})
        same = {key: before.get(key) == own[key] for key in names}
        same["schema"] &= _is_close(before.get("scaling"), own["scaling"])
        # Earlier checkpoints lack it.
        same["classes"] |= None in (before.get("classes"), own["classes"])
        for key, what in names.items():
            if not same[key]:
                told = f": {before.get(key)}, now {own[key]}" if "rows" in key else ""
                raise ConfigError(
                    f"the {what} are not those of {found.saved.path}{told}; resume "
                    "with the same data, or start afresh without --resume"
                )


def _is_close(one, other):
    """Return whether two sums over scalings are equal but for rounding."""
    limit = ROUNDING * other[1]
    return one is not None and all(abs(a - b) <= limit for a, b in zip(one, other))
