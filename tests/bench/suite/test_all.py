"""`bench all`, whole."""

import json
import re
from pathlib import Path

import pytest

from pympi_train.bench.suite import result_file
from pympi_train.bench.suite.cases import step_flops
from pympi_train.cli import main
from pympi_train.comm.mesh import world

REFRAME = Path(__file__).parents[3] / "scripts/reframe/pympi_train_bench.py"
NAMED_BY_REFRAME = set(re.findall(r'_of\("([^"]*)"', REFRAME.read_text("utf-8")))


@pytest.mark.mpi(min_size=2)
def test_result_follows_the_schema(comm, mpi_tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    path = mpi_tmp_path / "found.json"
    folder = mpi_tmp_path / "files"
    if comm.rank == 0:
        folder.mkdir()
    comm.Barrier()
    options = ["--folder", str(folder), "--output", str(path), "--backend", "numpy"]
    assert main(["bench", "all", "--quick", *options]) == 0
    comm.Barrier()
    assert not list(folder.iterdir())
    found = json.loads(path.read_text())
    validator = jsonschema.Draft202012Validator
    validator.check_schema(result_file.schema())
    validator(result_file.schema()).validate(found)
    assert result_file.read_result(path) == found
    groups = {one["name"].partition("/")[0] for one in found["benchmarks"]}
    assert groups == {"start-up", "kernels", "exchange", "step", "input", "checkpoint"}
    names = {one["name"] for one in found["benchmarks"]}
    assert names >= NAMED_BY_REFRAME and len(NAMED_BY_REFRAME) > 5
    assert found["ranks"] == world().size and found["quick"]
    if comm.rank == 0:
        out = capsys.readouterr().out
        assert "% of kernels/triad" in out and f"wrote {path}" in out
    assert main(["bench", "compare", str(path), str(path), "--by", "9"]) == 0


@pytest.mark.mpi(min_size=2)
def test_nothing_is_measured_for_a_file_that_cannot_be_written(
    comm, mpi_tmp_path, capsys
):
    options = ["--output", str(mpi_tmp_path / "absent" / "x.json")]
    assert main(["bench", "all", *options]) == 2
    assert ("cannot be written" in capsys.readouterr().err) == (comm.rank == 0)
    options = ["--quick", "--folder", str(mpi_tmp_path / "absent")]
    assert main(["bench", "all", *options, "--backend", "numpy"]) == 2
    assert ("No such file" in capsys.readouterr().err) == (comm.rank == 0)


def test_operations_of_a_step():
    n, d, h, c = 7, 5, 4, 3
    forward = 2 * n * (d * h + h * c)
    weights = forward
    inputs = 2 * n * h * c  # of the second layer alone
    assert step_flops([d, h, c], n) == forward + weights + inputs
