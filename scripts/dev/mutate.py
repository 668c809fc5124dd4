#!/usr/bin/env python3
"""Check that the tests detect errors: plant each in a copy of the package.

    scripts/dev/mutate.py                  all errors
    scripts/dev/mutate.py data/ nccl       those in files whose path contains a word
    scripts/dev/mutate.py --ranks 3        MPI tests on 3 ranks only

Run it with the Python of an environment that has the extras `test`, `fast` and
`emulation`, and an MPI library. The errors are listed in ``mutations.py`` and, for the
GPU path, in ``mutations_gpu.py``, each with the tests that must fail. Prints a line for
each error; the exit status is 1 if an error was missed. 32-bit indices are not planted,
because they fail only with 2^31 elements.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import CPU_MUTATIONS
from mutations_gpu import GPU_MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("pympi_train", "kernels", "tests", "examples", "setup.cfg")
TIMEOUT_S = 600  # of an error's tests; most end within twenty seconds
RANKS_TIMEOUT_S = 60  # without a finished test, for ranks that wait for each other


def require_once(path, old):
    """Raise ValueError unless ``old`` occurs exactly once in the file ``path``."""
    count = (ROOT / path).read_text().count(old)
    if count != 1:
        raise ValueError(f"{path}: expected once, got {count}: {old!r}")


def copy_tree(tree):
    """Copy the files that the tests need to the folder ``tree``."""
    for name in COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / name)


def run_tests(tree, arguments):
    """Run pytest in the folder ``tree``.

    Returns
    -------
    is_seen : bool
        Whether a test failed.
    line : str
        Name of the failed test, or the last line of pytest's output.
    """
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    argv += ["--ranks-timeout", str(RANKS_TIMEOUT_S), *arguments]
    pytest = subprocess.Popen(
        argv, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = pytest.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.terminate()  # not kill: pytest ends its ranks first
        pytest.communicate()
        return False, f"still running after {TIMEOUT_S} s"
    lines = output.strip().splitlines()
    failed = [line.split()[1] for line in lines if line.startswith("FAILED ")]
    # Exit status 1 means failed tests; any other that pytest did not run them all.
    is_seen = pytest.returncode == 1 and bool(failed)
    return is_seen, (failed or lines or [""])[-1]


def try_mutation(mutation, options):
    """Plant an error in a new copy of the tree; return whether the tests detect it."""
    path, old, new, tests = mutation
    with tempfile.TemporaryDirectory(prefix="pympi_train-mutate-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        file = tree / path
        file.write_text(file.read_text().replace(old, new))
        is_seen, line = run_tests(tree, [*tests, *options])
    text = f"{path}: {old.strip()!r} -> {new.strip()!r}: {line}"
    print("seen  " if is_seen else "MISSED", text, flush=True)
    return is_seen


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="in a file's name")
    parser.add_argument("--ranks", help="for pytest, in place of an error's own")
    return parser.parse_args(argv)


def main(argv):
    args = parse_arguments(argv)
    chosen = [
        mutation
        for mutation in CPU_MUTATIONS + GPU_MUTATIONS
        if not args.words or any(word in mutation[0] for word in args.words)
    ]
    for path, old, *_ in chosen:
        require_once(path, old)
    options = ["--ranks", args.ranks] if args.ranks else []
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began_s = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(lambda one: try_mutation(one, options), chosen))
    elapsed_s = time.monotonic() - began_s
    print(f"{sum(seen)} of {len(seen)} planted errors were seen, in {elapsed_s:.0f} s")
    return 0 if all(seen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
