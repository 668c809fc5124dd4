"""The levels of docs/architecture.md: imports point down, and packages stay small."""

import ast
import functools
from pathlib import Path

import pytest

LEVELS = [
    {"errors", "random", "trace"},
    {"flat", "keys", "mpi_libraries", "paths", "programs"},
    {"backends"},
    {"comm"},
    {"checkpoint", "data", "layers", "optim"},  # siblings: none may import another
    {"models"},
    {"parallel"},
    {"train"},
    {"config", "lanes"},
    {"runs"},
    {"bench", "checkpointtools", "datatools", "pool"}
    | {"launch", "serve", "sklearn", "slurm", "tracetools"},
    {"scaling", "search"},
    {"cli"},
]
# Packages inside a package: each may import those that are named before it, no other.
INNER = {
    "backends": ("numpy", "numba", "cuda"),
    "comm": ("watch", "transports", "sums"),
    "data": ("windows", "formats", "tables", "sources", "loading", "feeds"),
    "parallel": (),
    "pool": (),
    "runs": ("earlier", "recovery", "elastic"),
    "scaling": ("model", "analysis", "simulation", "study", "results", "report"),
}
MOST_FILES = 14  # of a folder, __init__.py apart
HEIGHT = {unit: i for i, level in enumerate(LEVELS) for unit in level}
ROOT = Path(__file__).parents[1] / "pympi_train"

# Importable anywhere: it is a string.
FREE = {"__version__"}

# Library: the units that may import it.
ONLY_IN = {
    "cupy": {"backends"},
    "numba": {"backends"},
    "onnx": {"checkpointtools"},
    "fsspec": {"data"},
    "h5py": {"data"},
    "pyarrow": {"data", "datatools", "bench"},  # bench compares with it
    "pynvml": {"backends"},
    "threadpoolctl": {"backends"},
    "zarr": {"data"},
    "mpi4py": set(HEIGHT) - LEVELS[0] - LEVELS[1] - {"backends", "layers", "optim"},
}


@functools.cache
def modules():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if unit not in ("__init__", "__main__"):
            found.append((unit, path.relative_to(ROOT), imports(path.read_text())))
    return found


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
    return HEIGHT.get(target, len(LEVELS)) >= HEIGHT[unit]


@pytest.mark.parametrize(
    "unit, source, wrong",
    [
        ("comm", "from pympi_train.flat.memory import Layout", False),
        ("comm", "from pympi_train import errors", False),
        ("comm", "from pympi_train.comm import checks", False),
        ("cli", "from pympi_train import __version__", False),
        ("comm", "import numpy", False),
        ("comm", "from pympi_train.train.trainer import Trainer", True),
        ("data", "import pympi_train.optim.adam", True),
        ("comm", "def f():\n    from pympi_train import train", True),
        ("train", "from pympi_train import Trainer", True),
        ("train", "import pympi_train", True),
        ("train", "from . import trainer", True),
    ],
)
def test_rule_itself(unit, source, wrong):
    assert any(climbs(unit, name) for name in imports(source)) is wrong


def test_every_unit_has_a_level():
    assert {unit for unit, _, _ in modules()} <= set(HEIGHT)


def test_imports_point_down():
    wrong = [
        f"{path} imports {name}"
        for unit, path, names in modules()
        for name in names
        if climbs(unit, name)
    ]
    assert not wrong


def inner(path):
    """The package inside a package that a module lies in, or None."""
    return path.parts[1] if len(path.parts) > 2 else None


def crosses(path, name):
    """Whether a module of an inner package imports from another that it may not."""
    package, mine = path.parts[0], inner(path)
    parts = name.split(".")
    if mine is None or parts[:2] != ["pympi_train", package] or len(parts) < 4:
        return False
    other, order = parts[2], INNER.get(package, ())
    if other == mine or not (ROOT / package / other).is_dir():
        return False
    return other not in order or order.index(other) >= order.index(mine)


@pytest.mark.parametrize(
    "path, name, wrong",
    [
        ("comm/sums/tree.py", "pympi_train.comm.checks.agreed", False),
        ("comm/sums/tree.py", "pympi_train.comm.transports.host.HostTransport", False),
        ("comm/watch/guard.py", "pympi_train.comm.sums.tree.total", True),
        ("parallel/gpu/half.py", "pympi_train.parallel.gpu.allreduce.A", False),
        ("parallel/gpu/half.py", "pympi_train.parallel.sharded.params.A", True),
        ("parallel/make.py", "pympi_train.parallel.sharded.params.A", False),
    ],
)
def test_rule_of_inner_packages(path, name, wrong):
    assert crosses(Path(path), name) is wrong


def test_inner_packages_keep_apart():
    wrong = [
        f"{path} imports {name}"
        for _, path, names in modules()
        for name in names
        if crosses(path, name)
    ]
    assert not wrong


def test_no_folder_has_too_many_files():
    folders = [ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())]
    crowded = {
        str(folder): n
        for folder in folders
        if (n := len({*folder.glob("*.py")} - {folder / "__init__.py"})) > MOST_FILES
    }
    assert not crowded


# Names that several modules share since they are called in each other's place, or by
# their module's name alone.
SHARED_NAMES = {
    "bench": {"measure"},
    "cli": {"add_arguments", "run"},
}


def test_no_two_things_have_one_name():
    found = {}
    for unit, path, _ in modules():
        if unit == "backends":  # three times the same functions
            continue
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                shared = node.name in SHARED_NAMES.get(unit, ())
                if not node.name.startswith("_") and not shared:
                    found.setdefault(node.name, []).append(str(path))
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


def test_cupy_is_imported_by_one_backend():
    files = {path for _, path, names in modules() for n in names if _of(n, "cupy")}
    assert files
    assert all(path.match("backends/cuda/*.py") for path in files)


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
