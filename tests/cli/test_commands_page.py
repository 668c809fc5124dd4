"""docs/commands.md is what the parsers say."""

import runpy
from pathlib import Path

from pympi_train import cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "commands.md"
SCRIPT = ROOT / "scripts" / "make_commands_page.py"


def test_page_is_up_to_date():
    made = runpy.run_path(str(SCRIPT))["page"]()
    assert PAGE.read_text("utf-8") == made, f"run python {SCRIPT.relative_to(ROOT)}"
    for name in cli.COMMANDS:
        assert f"\n## `pympi-train {name}`\n" in made
