"""The errors of ``scripts/dev/mutate_gpu.py`` can be planted; that tests see them, it
tells itself."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTATIONS = runpy.run_path(str(ROOT / "scripts" / "dev" / "mutate_gpu.py"))["MUTATIONS"]


@pytest.mark.parametrize("path, old, new, tests", MUTATIONS)
def test_what_an_error_replaces_stands_there_once(path, old, new, tests):
    assert (ROOT / path).read_text().count(old) == 1
    assert new != old and (ROOT / tests[0]).exists()
