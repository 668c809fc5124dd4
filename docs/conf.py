"""Sphinx settings: Markdown pages through MyST, in the furo theme."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "pympi_train" / "__init__.py"


def package_version():
    """The package's version, without importing the package."""
    for node in ast.parse(SOURCE.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise LookupError(f"no __version__ in {SOURCE}")


project = "pympi_train"
author = "The pympi_train developers"
copyright = "2026, The pympi_train developers"
release = package_version()

extensions = ["myst_parser"]
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"pympi_train {release}"
