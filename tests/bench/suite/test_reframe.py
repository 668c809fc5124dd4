"""The ReFrame test of scripts/reframe, run by ReFrame where it is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "scripts" / "reframe"


@pytest.mark.grid
def test_reframe_passes_and_fails(tmp_path):
    reframe = shutil.which("reframe")
    if reframe is None:
        pytest.skip("ReFrame is not installed")
    command = tmp_path / "bin" / "pympi-train"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pympi_train "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])

    def run(*settings):
        options = [word for setting in settings for word in ("-S", setting)]
        done = subprocess.run(
            [reframe, "--prefix", str(tmp_path), "-C", str(FOLDER / "one_node.py")]
            + ["-c", str(FOLDER / "pympi_train_bench.py"), "-r", "--keep-stage-files"]
            + ["-S", "BenchAll.quick=1", *options],
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        return done.returncode, done.stdout

    status, out = run()
    assert status == 0, out
    values = dict(re.findall(r"P: (\w+): (\S+)", out))
    assert len(values) == 7 and all(float(value) > 0 for value in values.values())
    (first,) = tmp_path.glob("stage/**/bench.json")
    found = json.loads(first.read_text())
    for factor, passes in ((1e3, True), (1e-3, False)):
        for one in found["benchmarks"]:  # the reference: much slower, then faster
            one["seconds"] = [[factor * x for x in xs] for xs in one["seconds"]]
        reference = tmp_path / "reference.json"
        reference.write_text(json.dumps(found))
        status, out = run(f"BenchAll.result={reference}")
        assert (status == 0) is passes, out
        assert ("something became slower" in out) is not passes
        found = json.loads(first.read_text())
