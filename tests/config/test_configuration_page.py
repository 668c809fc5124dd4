"""docs/configuration.md is what the configuration's definitions say."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from pympi_train.config import config
from pympi_train.config.rules import RULES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "make_configuration_page.py"))


def test_page_is_up_to_date(script):
    found = PAGE.read_text(encoding="utf-8")
    assert found == script["page"](), "run python scripts/make_configuration_page.py"


def test_page_has_each_key_once_and_each_rule():
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, cls in config.SECTIONS.items():
        (part,) = [part for part in parts if part.startswith(f"`[{name}]`")]
        keys = re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)
        assert keys == [field.name for field in dataclasses.fields(cls)]
    (rules,) = [part for part in parts if part.startswith("Combinations")]
    assert len(re.findall(r"^\* ", rules, flags=re.MULTILINE)) == len(RULES)


def test_first_example_of_the_page_is_accepted(script):
    text = re.search(r"```toml\n(.*?)```", script["page"](), flags=re.DOTALL)[1]
    assert config.parse(text).model.hidden == [128, 64]


@pytest.mark.parametrize(
    "kind, expected",
    [
        (bool, "boolean"),
        (float | str | None, "number or string"),
        (str | list[str], "string or list of strings"),
        (dict[str, float] | None, "table of numbers"),
    ],
)
def test_types_in_words(script, kind, expected):
    assert script["type_text"](kind) == expected


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({"doc": "no limit"}, ""),
        ({"least": 0, "below": 1}, "≥ 0, < 1"),
        ({"above": 0.5, "most": 2**64 - 1}, "> 0.5, ≤ 2^64 - 1"),
        ({"choices": ("auto", "numpy")}, '`"auto"`, `"numpy"`'),
    ],
)
def test_limits_in_words(script, limits, expected):
    assert script["limits_text"](limits) == expected
