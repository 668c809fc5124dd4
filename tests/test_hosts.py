"""Ranks on several hosts, which are network namespaces of this machine."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pympi_train.pool.report.status import describe_pool

ROOT = Path(__file__).parents[1]
NAME = "t" + uuid.uuid4().hex[:8].translate(str.maketrans("0123456789", "ghijklmnop"))

RANK = """
import json
from pathlib import Path
import numpy as np
from mpi4py import MPI

comm, n = MPI.COMM_WORLD, 1_000_000
sent = Path("/sys/class/net/eth0/statistics/tx_bytes")
node = comm.Split_type(MPI.COMM_TYPE_SHARED)
before, block = int(sent.read_text()), np.full(n, comm.rank + 1.0)
comm.Allreduce(MPI.IN_PLACE, block)
comm.Barrier()
assert (block == comm.size * (comm.size + 1) / 2).all()
mine = MPI.Get_processor_name(), node.size, int(sent.read_text()) - before
found = comm.gather(mine)
if comm.rank == 0:
    print(json.dumps(found))
"""


def hosts(*words, check=True):
    env = {
        **os.environ,
        "HOSTS_NAME": NAME,
        "MPIRUN": str(Path(sys.executable).parent / "mpirun"),
    }
    done = subprocess.run(
        ["scripts/dev/hosts", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def two_hosts():
    done = hosts("up", "2", check=False)
    if "needs " in done.stderr or "not allowed" in done.stderr:
        pytest.skip(f"hosts in network namespaces: {done.stderr.strip()}")
    try:
        assert done.returncode == 0, done.stderr
        yield
    finally:
        hosts("down")


def run_on_ranks(*words, check=True):
    """Run python on two ranks, one on each host."""
    python = "env", f"PYTHONPATH={ROOT}", sys.executable
    return hosts("run", "-n", "2", "--", *python, *words, check=check)


def on_ranks(*words):
    """What python prints on two ranks, one on each host."""
    return run_on_ranks(*words).stdout


def test_ranks_of_two_hosts_share_nothing_but_the_network(two_hosts, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    names, node_sizes, sent = zip(*json.loads(on_ranks(str(script))))
    assert names == (NAME + "1", NAME + "2")
    assert node_sizes == (1, 1)
    assert all(8e6 <= n <= 9e6 for n in sent)  # 2 n (P - 1) / P float64


def test_a_training_finds_two_nodes(two_hosts, tmp_path):
    sets = ["train.epochs=1", f"output.directory={tmp_path}/run"]
    sets += ["parallel.strategy=hierarchical", "train.backend=numpy"]
    config = str(ROOT / "examples" / "digits.toml")
    command = ["-m", "pympi_train", "train", config, "--json", "--set", *sets]
    result = json.loads(on_ranks(*command).splitlines()[-1])
    assert result["ranks"] == result["exchange"]["nodes"] == 2
    assert result["steps"] > 0


DISTURBED = """
import sys, time
import numpy as np
import pympi_train as pt

class Model(pt.Softmax):
    calls = 0

    def loss(self, params, batch):
        self.calls += len(batch.x) > 0
        while WHAT == "hang" and trainer.comm.rank == 0 and self.calls > 2:
            time.sleep(1)
        return super().loss(params, batch)

    def gradient(self, params, grads):
        super().gradient(params, grads)
        if WHAT == "raise" and trainer.comm.rank == 0 and self.calls > 2:
            trainer.strategy.combine = None  # an error that no other rank is told of
        if WHAT == "exit" and trainer.comm.rank == 0 and self.calls > 2:
            sys.exit(3)

WHAT = sys.argv[2]
parallel = pt.Parallel(strategy=sys.argv[1], timeout_s=2 if WHAT == "hang" else 600)
how = {"parallel": parallel, "batch_size": 8, "backend": "numpy"}
with pt.Trainer(Model(2, 2), pt.SGD(0.1), **how) as trainer:
    data, x = None, np.ones((32, 2), np.float32)
    if not trainer.serves:
        data = pt.Dataset.split(x, np.arange(32) % 2, comm=trainer.comm)
    trainer.fit(data, epochs=9)
"""


def disturbed(tmp_path, strategy, what="hang"):
    script = tmp_path / "disturbed.py"
    script.write_text(DISTURBED)
    return run_on_ranks(str(script), strategy, what, check=False)


@pytest.mark.parametrize("strategy", ["allreduce", "server"])
def test_a_rank_that_hangs_on_another_host_ends_with_the_job(
    two_hosts, tmp_path, strategy
):
    """An exit status alone does not end it: MPICH's launcher would wait for it."""
    done = disturbed(tmp_path, strategy)
    assert done.returncode == 124, done.stderr
    assert "rank 1 of 2 has waited 2" in done.stderr
    assert "who is missing runs on another node" in done.stderr


def test_an_error_of_one_rank_ends_those_of_other_hosts(two_hosts, tmp_path):
    """MPI_Abort of MPICH does not return for communicators other than the world's."""
    done = disturbed(tmp_path, "allreduce", "raise")
    assert done.returncode == 1, done.stderr
    assert "rank 0 of 2 failed: ending the job" in done.stderr


def test_an_only_worker_that_exits_ends_the_servers_of_other_hosts(two_hosts, tmp_path):
    """A server does not see that the program ended, and waits without a timeout."""
    done = disturbed(tmp_path, "server", "exit")
    assert done.returncode == 1, done.stderr
    assert "rank 0 of 2 failed: ending the job" in done.stderr


JOBS = """
[[job]]
name = "one"
config = "{0}"
set = {{ train.epochs = 1, parallel.reduction = "exact", data.train = "{1}" }}
max_ranks = 1
[[job]]
name = "two"
config = "{0}"
set = {{ train.epochs = 1, parallel.reduction = "exact", data.train = "{1}" }}
min_ranks = 2
"""


def test_a_job_of_a_pool_has_ranks_of_two_nodes(two_hosts, tmp_path):
    """Its bits are those of a job on one rank, and the status shows its nodes."""
    folder = ROOT / "examples"
    text = JOBS.format(folder / "digits.toml", folder / "digits.npz")
    (tmp_path / "jobs.toml").write_text(text)
    on_ranks("-m", "pympi_train", "pool", str(tmp_path / "jobs.toml"))
    found = describe_pool(tmp_path / "runs" / "jobs")
    one, two = found["jobs"]
    assert one["result"]["weights_sha256"] == two["result"]["weights_sha256"]
    assert (len(one["nodes"]), two["nodes"]) == (1, [0, 1])


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["up", "0"], "expected a number from 1 to 99, got '0'"),
        (["up", "2", "1gbit; ls"], "expected a rate such as 1gbit, got '1gbit; ls'"),
        (["run", "-n", "2"], "usage: run -n N [--] COMMAND"),
        (["run", "2", "ls"], "usage: run -n N [--] COMMAND"),
        (["run", "-n", "3", "--", "ls"], "2 hosts are up, asked for 3"),
        ([], "usage: scripts/dev/hosts up N [RATE]"),
    ],
)
def test_what_cannot_be_is_said(two_hosts, words, complaint):
    done = hosts(*words, check=False)
    assert done.returncode == 2 and complaint in done.stderr
