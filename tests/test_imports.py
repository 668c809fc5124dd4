"""What a start costs, in modules and file look-ups: ten thousand ranks pay it at once.

Times are not asserted. Calls are those of strace's class %file (open, stat, access,
readlink and the like), the ones that a parallel file system's metadata server sees.
"""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Searched as site-packages is: behind the standard library.
PATH = f"import sys; sys.path.insert(len(sys.path) - 1, {str(ROOT)!r}); "
IMPORT = PATH + "import pympi_train"
NUMPY = PATH + "import numpy"
LOADED = "; print(*sorted({name.split('.')[0] for name in sys.modules}))"

HEAVY = {"mpi4py", "scipy", "numba", "llvmlite", "matplotlib", "cupy", "tqdm"}
CALLS_BEYOND_NUMPY = 60
CALLS_OF_HELP = 400  # 327 in Python 3.11


def command_line(*arguments):
    """What the installed command runs, with the modules it loaded on stderr."""
    return PATH + (
        f"sys.argv = ['pympi-train', *{arguments!r}]\n"
        "import atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from pympi_train.cli import main\n"
        "sys.exit(main())"
    )


def python(code, tmp_path, launcher=(), options=()):
    """Run ``code`` in a new process, away from the checkout."""
    variables = ("PYTHONPATH", "PYTHONSTARTUP", "LANGUAGE")
    env = {name: os.environ[name] for name in os.environ if name not in variables}
    env["LC_ALL"] = "C.UTF-8"  # argparse looks for translations of its words
    return subprocess.run(
        [*launcher, sys.executable, *options, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@functools.cache
def strace_works():
    strace = shutil.which("strace")
    return strace and not subprocess.run(
        [strace, "-qq", "-o", os.devnull, "true"], capture_output=True
    ).returncode


def n_calls(code, tmp_path, options=()):
    """File look-ups of ``code`` in a new process, with its bytecode already cached."""
    if not strace_works():
        pytest.skip("strace is absent or not allowed: modules alone were counted")
    log = tmp_path / "strace"
    strace = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", str(log)]
    python(code, tmp_path, options=options)
    python(code, tmp_path, strace, options)
    return len(log.read_text().splitlines())


def test_import_loads_nothing_heavy(tmp_path):
    loaded = set(python(IMPORT + LOADED, tmp_path).stdout.split())
    assert "pympi_train" in loaded
    assert not loaded & HEAVY


def test_import_costs_numpy_and_little_more(tmp_path):
    calls = n_calls(IMPORT, tmp_path)
    assert calls <= n_calls(NUMPY, tmp_path) + CALLS_BEYOND_NUMPY


def test_every_public_name_is_found_without_mpi(tmp_path):
    code = IMPORT + "; [getattr(pympi_train, name) for name in pympi_train.__all__]"
    loaded = set(python(code + LOADED, tmp_path).stdout.split())
    assert "numpy" in loaded  # otherwise the names were not looked up
    assert not loaded & {"mpi4py", "matplotlib", "cupy", "scipy"}


@pytest.mark.parametrize("argument, said", [("--help", "train"), ("--version", ".")])
def test_help_and_version_load_neither_numpy_nor_mpi(argument, said, tmp_path):
    done = python(command_line(argument), tmp_path)
    assert said in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "argparse" in loaded
    assert not loaded & (HEAVY | {"numpy", "safetensors"})


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_look_up_few_files(argument, tmp_path):
    # Without site: the .pth files of an editable install are not ours.
    code = command_line(argument)
    assert n_calls(code, tmp_path, ["-S"]) <= CALLS_OF_HELP


def test_module_runs_as_the_command_does(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pympi_train", "--version"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == python(command_line("--version"), tmp_path).stdout
