"""File names as people write them."""

import os

import pytest

from pympi_train.errors import ConfigError
from pympi_train.paths import beside, expanded, is_remote


@pytest.mark.parametrize(
    "text, want",
    [
        ("a/b.csv", "a/b.csv"),
        ("~", "/home/me"),
        ("~/runs/x", "/home/me/runs/x"),
        ("a/~/b", "a/~/b"),
        ("$SCRATCH/x", "/scratch/me/x"),
        ("${SCRATCH}x/$EMPTY.npz", "/scratch/mex/.npz"),
        ("$TILDE/x", "/home/me/x"),
        ("100$", "100$"),
        ("ä b", "ä b"),
    ],
)
def test_names(monkeypatch, text, want):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TILDE", "~")
    assert expanded(text) == want


@pytest.mark.parametrize(
    "text, words",
    [
        ("$NOT_SET_HERE/x", "the environment variable 'NOT_SET_HERE' is not set"),
        ("a/${NOT_SET_HERE}", "the environment variable 'NOT_SET_HERE' is not set"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name is no user's home folder"),
        ("", "an empty file name"),
        ("$EMPTY", "an empty file name"),
        ("a\udcff.csv", r"a\\udcff.csv': a file name that is not UTF-8"),
        (b"a\xff.csv", r"a\\udcff.csv': a file name that is not UTF-8"),
    ],
)
def test_names_that_are_refused(monkeypatch, text, words):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match=r"^\[data\] train '.*" + words):
        expanded(text, "[data] train")


def test_a_name_that_exists_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "elsewhere")
    (tmp_path / "a$HERE").mkdir()
    assert expanded(tmp_path / "a$HERE") == str(tmp_path / "a$HERE")
    assert expanded(tmp_path / "b$HERE") == str(tmp_path / "belsewhere")


@pytest.mark.parametrize(
    "text, want",
    [
        ("s3://bucket/x.npy", True),
        ("http://host/a*.npz", True),
        ("gs+x.1-2://y", True),
        ("/a/b.csv", False),
        ("a:b.csv", False),
        ("C:/x.csv", False),
        ("1://x", False),
        ("dir/http://x", False),
    ],
)
def test_urls(text, want):
    assert is_remote(text) is want
    assert beside("/folder", text) == (text if want else os.path.join("/folder", text))
