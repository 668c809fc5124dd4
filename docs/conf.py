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

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
autosummary_generate = True
templates_path = ["_templates"]  # Trainer is documented with what it inherits
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_ivar = True
# Sources are listed without a mark in the text; names stand in several classes.
suppress_warnings = ["ref.footnote", "ref.python"]
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True
# Types in docstrings are words for people: "ndarray, shape (k,)".
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"pympi_train {release}"
