"""Write docs/commands.md from the parsers of the command line.

A test compares the page with the output of this script.
"""

import argparse
from pathlib import Path

from pympi_train import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"

OPENING = """\
# Commands

<!-- Made by scripts/make_commands_page.py: change that, or the parsers in cli/. -->

`pympi-train COMMAND --help` prints the same. Every command but `launch`, `plot`,
`pool status`, `slurm` and `bench compare`, `io`, `kernels` and `optimizer` runs on any
number of ranks: put `mpirun -n N` or `srun` first.

Exit status: 0 on success; 2 for an error that you can correct, explained in one line; 1
for any other error, with the traceback of the rank that failed, and if jobs of a pool
are not finished; 75 for a training or a pool that was interrupted and saved its state
([signals](failures.md#signals)); 130 after Ctrl-C.
"""

TABLE = "| argument | meaning |\n|---|---|\n"


def page():
    """Return the text of the page."""
    parts = [OPENING]
    for name in cli.COMMANDS:
        parser = subparsers(cli._parser([name]))[name]
        parts.append(section(f"pympi-train {name}", parser, "##"))
        for kind, inner in subparsers(parser).items():
            parts.append(section(f"pympi-train {name} {kind}", inner, "###"))
    return "\n".join(parts)


def section(name, parser, mark):
    """Return the section of the page on one command."""
    rows = "".join(
        f"| {cells(action)} |\n"
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    )
    table = f"\n{TABLE}{rows}" if rows else ""
    return f"{mark} `{name}`\n\n{sentence(parser.description)}\n{table}"


def sentence(text):
    """Return ``text`` with an initial capital and a full stop."""
    return text[0].upper() + text[1:].rstrip(".") + "."


def subparsers(parser):
    """Return the subparsers of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def cells(action):
    """Return the cells of the row of an argument."""
    value = action.metavar or "|".join(map(str, action.choices or ())) or None
    if action.option_strings:
        takes = action.nargs != 0
        value = f" {value or action.dest.upper()}" if takes else ""
        more = " ..." if action.nargs == "+" else ""
        text = ", ".join(action.option_strings) + value + more
    else:
        text = value or action.dest
    meaning = (action.help or "").replace("%(default)s", str(action.default))
    return f"`{text}` | {meaning}".replace("|", r"\|").replace(r"` \|", "` |")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
