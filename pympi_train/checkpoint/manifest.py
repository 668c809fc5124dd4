"""The manifest of a checkpoint: what it holds, in which files, with their hashes."""

import json
import math
import os

import numpy as np

from pympi_train.checkpoint.durable import new_hash
from pympi_train.errors import MALFORMED, DataError

NAME = "manifest.json"
FORMAT = 1
KEYS = {"format", "software", "values", "tensors", "files", "about"}


def file_bytes(content):
    """Return the bytes of a manifest file.

    The file holds ``{"blake2b": ..., "content": ...}``: the content, and the hash of
    its bytes in the file, so that a reader finds any change of either.

    Parameters
    ----------
    content : dict
        Of plain values; see `json_values`.
    """
    return _framed(_text(content))


def content_of(data, path):
    """Return the content of a manifest file.

    Raises
    ------
    DataError
        If the content does not have the hash in the file, or has another format.
    """
    try:
        # Not the bytes of the parsed content: to write them again took most of the time
        # for a manifest of 100,000 files.
        text = data[data.find(b"{", 1) : -2]
        if _framed(text) != data:
            raise ValueError("the content does not have the hash that it names")
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(
                f"expected format {FORMAT}, found {content['format']}: another version "
                "of this program wrote it"
            )
        _require_form(content)
    except MALFORMED as error:
        raise DataError(f"{path}: malformed: {error}") from error
    return content


def packed(entry):
    """Return a rank's part of the manifest as bytes."""
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).encode()


def unpacked(data):
    """Return the part of the manifest for which `packed` returned ``data``."""
    return json.loads(data)


def _framed(text):
    found = new_hash()
    found.update(text)
    return b'{"blake2b":"%s","content":%s}\n' % (found.hexdigest().encode(), text)


def _text(content):
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _require_form(content):
    """Raise ValueError unless files and regions are as this program writes them."""
    if set(content) != KEYS:
        raise ValueError(f"expected the keys {sorted(KEYS)}, found {sorted(content)}")
    for key in sorted(KEYS - {"format"}):
        if not isinstance(content[key], dict):
            raise ValueError(f"{key}: expected an object, found {content[key]!r}")
    files = content["files"]
    for name, entry in files.items():
        if os.path.basename(name) != name or name in ("", ".", "..", NAME):
            raise ValueError(f"not a file name: {name!r}")
        if set(entry) != {"n_bytes", "blake2b"}:
            raise ValueError(f"{name}: expected its size and its hash, found {entry}")
    for name, tensor in content["tensors"].items():
        np.dtype(tensor["dtype"])
        if not (tensor["n_blocks"] is None or type(tensor["n_blocks"]) is int):
            raise ValueError(f"{name}: {tensor['n_blocks']!r} blocks")
        for region in tensor["regions"]:
            if region["file"] not in files:
                raise ValueError(f"{name} lies in {region['file']!r}, which is no file")
            if not _lies_in(region["box"], tensor["shape"]):
                raise ValueError(f"{name}: {region['box']} of {tensor['shape']}")


def _lies_in(box, shape):
    """Return whether a box is a list of [low, high] within ``shape``."""
    if len(box) != len(shape):
        return False
    return all(0 <= low <= high <= n for (low, high), n in zip(box, shape))


def json_values(value):
    """Return ``value`` as JSON has it; NaN and infinities become text in a dict.

    Raises
    ------
    TypeError
        If it has no such form.
    """
    if isinstance(value, dict):
        return {_string(key): json_values(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, (float, np.floating)):
        return json_values(float(value)) if type(value) is not float else value
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    raise TypeError(f"a checkpoint cannot hold {value!r}")


def values_of(value):
    """Return the value of which `json_values` made ``value``; tuples become lists."""
    if isinstance(value, dict):
        if set(value) == {"$float"}:
            return float(value["$float"])
        return {key: values_of(v) for key, v in value.items()}
    return [values_of(v) for v in value] if isinstance(value, list) else value


def _string(key):
    if not isinstance(key, str):
        raise TypeError(f"a checkpoint cannot hold the key {key!r}")
    return key
