"""The schema of training data as JSON."""

import dataclasses

import numpy as np

from pympi_train.data.formats.files import FORMATS
from pympi_train.data.formats.token_files import TOKEN_DTYPES
from pympi_train.data.loading.options import MISSING
from pympi_train.data.loading.schema import Schema, TokenSchema
from pympi_train.data.preparation import KINDS, Encoding, Preparation
from pympi_train.data.standardise import Scaling

FORMAT = 4  # format version; incremented when the meaning changes


def plain_schema(schema):
    """Return the schema as JSON types; floats keep every bit."""
    if isinstance(schema, TokenSchema):
        return {"version": FORMAT, "format": schema.format, **vars(schema)}
    prepared = vars(schema.preparation)
    return {
        "version": FORMAT,
        **vars(schema),
        "classes": None if schema.classes is None else schema.classes.tolist(),
        "preparation": {
            **prepared,
            "fill": None if prepared["fill"] is None else prepared["fill"].tolist(),
            "encodings": [vars(encoding) for encoding in prepared["encodings"]],
            "scaling": _plain_scaling(prepared["scaling"]),
        },
        "target_scaling": _plain_scaling(schema.target_scaling),
    }


def _plain_scaling(scaling):
    if scaling is None:
        return None
    return {"mean": scaling.mean.tolist(), "scale": scaling.scale.tolist()}


def schema_of(plain):
    """Return the Schema or TokenSchema of what `plain_schema` returned.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If it is not of this form.
    """
    if plain.pop("version") != FORMAT:
        raise ValueError(f"version is not {FORMAT}: written by another release")
    if plain.get("format") == TokenSchema.format:
        return _token_schema(plain)
    _require_keys(plain, Schema)
    wrong = [name for name, is_right in _rules(plain).items() if not is_right]
    if wrong:
        raise ValueError(f"unexpected value of {wrong[0]!r}")
    plain["preparation"] = _preparation(plain["preparation"])
    plain["target_scaling"] = _scaling(plain["target_scaling"])
    if plain["classes"] is not None:
        plain["classes"] = np.array(plain["classes"])
    return Schema(**plain)


def _token_schema(plain):
    plain.pop("format")
    _require_keys(plain, TokenSchema)
    rules = {
        "window": type(plain["window"]) is int and plain["window"] > 0,
        "token_dtype": plain["token_dtype"] in TOKEN_DTYPES,
        "n_tokens": type(plain["n_tokens"]) is int and plain["n_tokens"] > 1,
        "dtype": plain["dtype"] in ("float32", "float64"),
    }
    wrong = [name for name, is_right in rules.items() if not is_right]
    if wrong:
        raise ValueError(f"unexpected value of {wrong[0]!r}")
    return TokenSchema(**plain)


def _require_keys(plain, kind):
    names = {f.name for f in dataclasses.fields(kind)}
    if set(plain) != names:
        raise ValueError(f"expected the keys {sorted(names)}, got {sorted(plain)}")


def _scaling(plain):
    if plain is None:
        return None
    mean, scale = (np.array(plain[key], dtype=np.float64) for key in ("mean", "scale"))
    return Scaling(mean, scale)


def _preparation(plain):
    encodings = [
        Encoding(**{**encoding, "values": tuple(encoding["values"])})
        for encoding in plain["encodings"]
    ]
    fill = plain["fill"]
    return Preparation(
        **{
            **plain,
            "fill": None if fill is None else np.array(fill, dtype=np.float64),
            "indicators": tuple(plain["indicators"]),
            "encodings": tuple(encodings),
            "dates": tuple(map(tuple, plain["dates"])),
            "scaling": _scaling(plain["scaling"]),
        }
    )


def _preparation_is_right(plain, n_features, names):
    """Return whether a preparation is one that `plain_schema` writes."""
    _require_keys(plain, Preparation)
    n, fill, clip = plain["n_columns"], plain["fill"], plain["clip"]
    if type(n) is not int or n < 1:
        return False
    n_places = n if names is None else len(names)
    for encoding in plain["encodings"]:
        _require_keys(encoding, Encoding)
    columns = [encoding["column"] for encoding in plain["encodings"]]
    places = [encoding["place"] for encoding in plain["encodings"]]
    dates = plain["dates"]
    places += [place for place, _ in dates]
    columns_of_dates = [column for _, column in dates]
    return (
        plain["missing"] in MISSING
        and (fill is None or (len(fill) == n and bool(np.isfinite(fill).all())))
        and (clip is None or (type(clip) is float and 0 < clip < np.inf))
        and _are_places(plain["indicators"], n)
        and _are_places(columns + columns_of_dates, n)
        and columns == sorted(columns)
        and _are_places(places, n_places)
        and all(map(_encoding_is_right, plain["encodings"]))
        and (plain["scaling"] is None or _is_scaling(plain["scaling"], n))
        and _preparation(plain).n_features == n_features
    )


def _are_places(values, n):
    """Return whether values are different numbers from 0 to ``n - 1``."""
    return (
        _all_of(int, values)
        and len(set(values)) == len(values)
        and all(0 <= value < n for value in values)
    )


def _encoding_is_right(plain):
    values = plain["values"]
    return (
        plain["kind"] in KINDS
        and _all_of(str, values)
        and len(set(values)) == len(values)
        and type(plain["has_other"]) is bool
        and len(values) + plain["has_other"] > 0
    )


def _rules(plain):
    """Return, per value, whether it is valid in the output of `plain_schema`."""
    task, n, classes = plain["task"], plain["n_features"], plain["classes"]
    names = plain["feature_names"]
    is_classification = task == "classification"
    return {
        "task": task in ("classification", "regression"),
        "format": plain["format"] in FORMATS.values(),
        "header": plain["header"] in (None, True, False),
        "dtype": plain["dtype"] in ("float32", "float64"),
        "n_features": type(n) is int and n > 0,
        "n_targets": type(plain["n_targets"]) is int and plain["n_targets"] > 0,
        "zero_based": plain["zero_based"] in (None, True, False),
        "columns": plain["columns"] is None or _all_of(str, plain["columns"]),
        "feature_names": names is None or _all_of(str, names),
        "classes": _are_labels(classes) if is_classification else classes is None,
        "preparation": _preparation_is_right(plain["preparation"], n, names),
        **_rules_of_targets(plain, is_classification),
    }


def _rules_of_targets(plain, is_classification):
    names, scaling = plain["target_names"], plain["target_scaling"]
    n = plain["n_targets"]
    if is_classification:
        return {"target_names": names is None, "target_scaling": scaling is None}
    return {
        "target_names": _all_of(str, names) and len(names) == n,
        "target_scaling": scaling is None or _is_scaling(scaling, n),
    }


def _all_of(kind, values):
    return type(values) is list and all(type(value) is kind for value in values)


def _are_labels(classes):
    if _all_of(int, classes):
        in_range = all(-(2**63) <= label < 2**63 for label in classes)
    else:
        in_range = _all_of(str, classes)
    return in_range and all(a < b for a, b in zip(classes, classes[1:]))


def _is_scaling(scaling, n):
    mean, scale = (np.array(scaling[key]) for key in ("mean", "scale"))
    return (
        mean.shape == scale.shape == (n,)
        and mean.dtype.kind in "if"
        and scale.dtype.kind in "if"
        and bool(np.isfinite([mean, scale]).all() and (scale > 0).all())
    )
