"""The template of a scaling study, with a pympi-train that only notes its words."""

import os
import subprocess
from pathlib import Path

import pytest

from pympi_train import cli

TEMPLATE = Path(__file__).parents[2] / "scripts" / "slurm" / "scaling.sbatch"


@pytest.mark.parametrize("status", [0, 75])
def test_it_runs_a_study_by_srun(tmp_path, status):
    program = tmp_path / "pympi-train"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >words\nexit {status}\n')
    program.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", TEMPLATE], cwd=tmp_path, env=environ)
    assert done.returncode == status
    words = (tmp_path / "words").read_text().splitlines()
    args = cli._parser(words).parse_args(words)
    assert (args.launcher, args.mode, args.ranks) == ("srun", "both", [1, 2, 4])
