"""The template of a scaling study, with an srun that starts nothing."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

TEMPLATE = Path(__file__).parents[2] / "scripts" / "slurm" / "scaling.sbatch"
SRUN = r"""#!/bin/bash
for word in "$@"; do
    case $word in --ntasks=*) n=${word#*=} ;; esac
done
[ "$n" != "$REFUSED" ] || exit 3
while [ "$1" != --batch-size ]; do shift; done
echo "a line of the program"
echo "{\"ranks\": $n, \"batch_size\": $2}"
"""


def study(tmp_path, **environ):
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environ |= {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    done = subprocess.run(["bash", TEMPLATE], cwd=tmp_path, env=os.environ | environ)
    lines = (tmp_path / "scaling-7.jsonl").read_text().splitlines()
    return done.returncode, [json.loads(line) for line in lines]


def test_global_batch_is_constant_in_the_strong_study_alone(tmp_path):
    status, found = study(tmp_path)
    assert status == 0
    counts = Counter(
        (entry["study"], entry["ranks"], entry["ranks"] * entry["batch_size"])
        for entry in found
    )
    strong = {("strong", n, 1024): 3 for n in (1, 2, 4)}
    assert counts == strong | {("weak", n, 256 * n): 3 for n in (1, 2, 4)}


def test_other_sizes_are_measured_if_one_fails(tmp_path):
    status, found = study(tmp_path, REFUSED="2")
    assert status == 1
    assert {entry["ranks"] for entry in found} == {1, 4}
