"""Imports point down the layers of docs/architecture.md, never up or across."""

import ast
from pathlib import Path

import pytest

LAYERS = [
    {"errors", "trace"},
    {"backends"},
    {"comm"},
    {"data", "layers", "optim"},  # siblings: none may import another
    {"models"},
    {"parallel"},
    {"train"},
    {"search", "bench", "launch", "serve", "sklearn"},
    {"cli"},
]
HEIGHT = {unit: i for i, layer in enumerate(LAYERS) for unit in layer}
ROOT = Path(__file__).parents[1] / "pympi_train"

# Importable anywhere: it is a string.
FREE = {"__version__"}

# Library: the units that may import it.
ONLY_IN = {
    "cupy": {"backends"},
    "numba": {"backends"},
    "threadpoolctl": {"backends"},
    "mpi4py": set(HEIGHT) - {"errors", "trace", "backends", "layers", "optim"},
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if unit not in ("__init__", "__main__"):
            yield unit, path.relative_to(ROOT), imports(path.read_text())


def imports(source):
    """Every imported name, dotted; a relative import keeps its leading dots."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def climbs(unit, name):
    """Whether an import by ``unit`` of ``name`` breaks the layers."""
    first, _, rest = name.partition(".")
    if first == "":  # relative
        return True
    if first != "pympi_train":
        return False
    target = rest.split(".")[0]
    if target == unit or target in FREE:
        return False
    # The package itself and the names it offers lie above every unit.
    return HEIGHT.get(target, len(LAYERS)) >= HEIGHT[unit]


@pytest.mark.parametrize(
    "unit, source, wrong",
    [
        ("comm", "from pympi_train.backends.memory import Layout", False),
        ("comm", "from pympi_train import errors", False),
        ("comm", "from pympi_train.comm import checks", False),
        ("cli", "from pympi_train import __version__", False),
        ("comm", "import numpy", False),
        ("comm", "from pympi_train.train.loop import Trainer", True),
        ("data", "import pympi_train.optim.adam", True),
        ("comm", "def f():\n    from pympi_train import train", True),
        ("train", "from pympi_train import Trainer", True),
        ("train", "import pympi_train", True),
        ("train", "from . import loop", True),
    ],
)
def test_rule_itself(unit, source, wrong):
    assert any(climbs(unit, name) for name in imports(source)) is wrong


def test_every_unit_has_a_layer():
    assert {unit for unit, _, _ in modules()} <= set(HEIGHT)


def test_imports_point_down():
    wrong = [
        f"{path} imports {name}"
        for unit, path, names in modules()
        for name in names
        if climbs(unit, name)
    ]
    assert not wrong


def test_cupy_is_imported_by_one_backend():
    files = {path for _, path, names in modules() for n in names if _of(n, "cupy")}
    assert files
    assert all(path.match("backends/cuda*.py") for path in files)


def _of(name, library):
    return name.split(".")[0] == library


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_where_it_belongs(library):
    wrong = [
        f"{path} imports {name}"
        for unit, path, names in modules()
        for name in names
        if _of(name, library) and unit not in ONLY_IN[library]
    ]
    assert not wrong
