"""Whether a training that goes on has the rows of its checkpoint."""

import json
import math

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.checkpoint.durable import new_hash
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data.standardise import CHUNK_BYTES
from pympi_train.errors import ConfigError
from pympi_train.runs.schema_file import plain_schema

ROUNDING = 1e-6  # by which sums of means and scales may differ
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 spread evenly


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


def sums_of_rows(sources, comm):
    """Return two sums over the values of all rows, which differ if these are others.

    Parameters
    ----------
    sources : list of Source
    comm : MPI.Comm

    Returns
    -------
    list of float
        Of the values, with a factor for each row and column; and of absolute values.

    Notes
    -----
    Collective. Reads each row once. Depends on the number of ranks by rounding.
    """
    own = np.zeros(2)
    for number, source in enumerate(sources, 1):
        for rows in source.pieces(CHUNK_BYTES):
            batch = source.batch(rows)
            places = source.start + np.arange(rows.start, rows.stop)
            factors = number + places * GOLDEN_RATIO % 1
            for values in (batch.x, batch.y, batch.weights):
                if values is not None:
                    own += _sums(values, factors)
    return reduced(comm, own).tolist()


def _sums(values, factors):
    """Return the sums over some rows; ``factors`` are those of the rows."""
    n_columns = math.prod(values.shape[1:])
    if isinstance(values, CSR):
        at = values.where()
        entries = values.values[at].astype(np.float64)
        weighted = entries * (1 + values.indices[at] / n_columns)
        return weighted @ factors[values.row_numbers()], abs(entries).sum()
    table = values.reshape(len(values), n_columns).astype(np.float64)
    of_columns = 1 + np.arange(n_columns) / max(1, n_columns)
    return factors @ (table @ of_columns), abs(table).sum()


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
    with together(comm):
        if comm.rank != 0:
            return
        what = what_differs(found.saved.about.get("data", {}), own, found.saved.path)
        if what is not None:
            raise ConfigError(
                f"{what}; resume with the same data, or start afresh without --resume"
            )


def what_differs(before, own, where):
    """Return what of a `fingerprint` is not as it was, in words, or None.

    ``where`` says whose the fingerprint ``before`` is. Both may have ``sums``, those of
    `sums_of_rows`, too.
    """
    names = {
        "rows": "training rows",
        "validation_rows": "validation rows",
        "schema": "features, labels or scaling",
        "classes": "numbers of training rows of each class",
        "sums": "sums of features, targets and weights",
    }
    same = {key: before.get(key) == own.get(key) for key in names}
    same["schema"] &= _is_close(before.get("scaling"), own["scaling"])
    # Earlier checkpoints lack it.
    same["classes"] |= None in (before.get("classes"), own["classes"])
    same["sums"] |= _is_close(before.get("sums"), own.get("sums"))
    for key, what in names.items():
        if not same[key]:
            told = f": {before.get(key)}, now {own[key]}" if "rows" in key else ""
            return f"the {what} are not those of {where}{told}"
    return None


def _is_close(one, other):
    """Return whether two sums over scalings are equal but for rounding."""
    if one is None or other is None:
        return one is other
    limit = ROUNDING * other[1]
    return all(abs(a - b) <= limit for a, b in zip(one, other))
