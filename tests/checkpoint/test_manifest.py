"""A manifest is read as it was written, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.checkpoint import manifest
from pympi_train.errors import DataError


def content():
    region = {"box": [[0, 2], [1, 3]], "file": "rank-000000.safetensors"}
    tensor = {"shape": [4, 3], "dtype": "float32", "n_blocks": None}
    return {
        "format": manifest.FORMAT,
        "software": {"numpy": "2"},
        "values": {"progress": {"epoch": 3, "loss": 0.1 + 0.2}},
        "tensors": {"params/w": {**tensor, "regions": [region]}},
        "files": {"rank-000000.safetensors": {"n_bytes": 3, "blake2b": "00"}},
        "about": {},
    }


def test_content_comes_back():
    data = manifest.file_bytes(content())
    assert manifest.content_of(data, "m") == content()
    assert json.loads(data)["content"]["tensors"]["params/w"]["shape"] == [4, 3]


def test_each_flipped_bit_is_found():
    data = manifest.file_bytes(content())
    for at in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(DataError, match="m: malformed"):
            manifest.content_of(bytes(flipped), "m")


def test_each_truncation_is_found():
    data = manifest.file_bytes(content())
    for end in range(len(data)):
        with pytest.raises(DataError, match="m: malformed"):
            manifest.content_of(data[:end], "m")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 99}, "expected format 1, found 99: another version"),
        ({"files": {}}, "params/w lies in 'rank-000000.safetensors', which is no file"),
        ({"files": {"../x": {}}}, r"not a file name: '\.\./x'"),
        ({"more": 1}, "expected the keys"),
        ({"about": [1]}, r"about: expected an object, found \[1\]"),
        ({"files": {"x": {"n_bytes": 1}}}, "x: expected its size and its hash"),
    ],
)
def test_what_this_program_does_not_write(change, words):
    with pytest.raises(DataError, match=words):
        manifest.content_of(manifest.file_bytes({**content(), **change}), "m")


@pytest.mark.parametrize(
    "key, value",
    [
        ("box", [[0, 2], [1, 4]]),
        ("box", [[-1, 2], [1, 3]]),
        ("box", [[2, 0], [1, 3]]),
        ("box", [[0, 2]]),
        ("box", [[0], [1, 3]]),
        ("box", [0, 2]),
        ("box", [[0, "2"], [1, 3]]),
        ("shape", [4, None]),
        ("n_blocks", "4"),
        ("dtype", "no such"),
    ],
)
def test_regions_that_this_program_does_not_write(key, value):
    changed = content()
    tensor = changed["tensors"]["params/w"]
    (tensor["regions"][0] if key == "box" else tensor)[key] = value
    with pytest.raises(DataError, match="m: malformed"):
        manifest.content_of(manifest.file_bytes(changed), "m")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_values_come_back(value):
    text = json.dumps(manifest.json_values(value), allow_nan=False)
    assert repr(manifest.values_of(json.loads(text))) == repr(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": b"bytes"}])
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        manifest.json_values(value)
