"""Jobs in which a rank stays away end by themselves, and say who it was."""

import re
import sys
import textwrap
import time
from dataclasses import replace

import gpus
import numpy as np
import pytest
from mpi_launch import Job, tagged
from serial import make_data, mlp, train
from spread import dataset

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.errors import DriftError, RankMismatchError, RemoteRankError

BEGIN = """
import os, signal, sys, time
import numpy as np
import pympi_train as pt
from pympi_train.comm.mesh import world
from pympi_train.data.feeds.feed import Feed
from pympi_train.runs import job, prepare
from pympi_train.train.setup import placement

comm, calls, rank = world(), 0, 1

def late(where):
    # What a rank does in its third step.
    if comm.rank == rank and where == WHERE and calls > 2:
        stay()

class Model(pt.Softmax):
    def loss(self, params, batch):
        global calls
        calls += len(batch.x) > 0
        late("loss")
        return super().loss(params, batch)

    def gradient(self, params, grads):
        late("gradient")
        super().gradient(params, grads)

class LateFeed(Feed):
    def batches(self, rows, n_batches=None):
        late("input")
        return super().batches(rows, n_batches)

placement.make_feed = lambda source, most, ops, y, dtype: LateFeed(source, most, y)
x = np.random.default_rng(0).random((24, 2), dtype=np.float32)
data = pt.Dataset.split(x, (x[:, 0] > 0.5).astype(int))
parallel = pt.Parallel(strategy="allreduce", timeout_s=3.0)
"""
TRAIN = """
kwargs = {"batch_size": 8, "backend": "numpy", "parallel": parallel}
with pt.Trainer(Model(2, 2), pt.Adam(), **kwargs) as trainer:
    trainer.fit(data, epochs=5, on_epoch=lambda record: late("on_epoch"))
"""
LOAD = """
from pympi_train.config.config import parse

calls = 3
load = prepare.load

def late_load(*args, **kwargs):
    late("load")
    return load(*args, **kwargs)

prepare.load = late_load
job.train(parse(CONFIG, overrides=["parallel.timeout_s=3.0"]), comm)
"""
STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
LOOP = "while True:\n    pass"
SLEEP = "time.sleep(600)"
HELD = 'import re\nre.match("(a+)+$", "a" * 60 + "b")  # holds the GIL for years'


def ended(tmp_path, where, stay, code=TRAIN, env=None):
    """Run the script on three ranks; what they wrote. No process may be left."""
    path = tmp_path / "script.py"
    stay = textwrap.indent(stay, "    ")
    path.write_text(f"WHERE = {where!r}\n{BEGIN}\ndef stay():\n{stay}\n{code}")
    with Job(3, [sys.executable, str(path)], env=env or {}) as job:
        status = job.wait(60)
        _, said = job.output()
        assert status, said  # neither 0 nor None: still running
        until_s = time.monotonic() + 10
        while tagged(job.tag) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert not tagged(job.tag)
    return said


@pytest.mark.parametrize(
    "where, stay, place",
    [
        ("loss", LOOP, "forward, step 3, for "),
        ("gradient", STOP, "backward, step 3, for "),
        pytest.param("input", SLEEP, "input, step 4, for ", marks=pytest.mark.grid),
        pytest.param(
            "on_epoch", HELD, "end of epoch, step 3, for ", marks=pytest.mark.grid
        ),
    ],
    ids=["loops in loss", "stopped", "sleeps in input", "holds the GIL in on_epoch"],
)
def test_rank_that_stays_away_is_named(tmp_path, where, stay, place):
    said = ended(tmp_path, where, stay)
    assert said.count("Not there, of the ranks of this node:") == 1
    assert f"  rank 1: {place}" in said
    assert re.search(r"^rank [02] of 3 has waited [3-9]", said, re.MULTILINE)
    assert "timeout_s = 3): ending the job" in said
    assert re.search(r"^rank [02] of 3 is here \(most recent", said, re.MULTILINE)
    assert ("its process is stopped" in said) == (stay == STOP)
    # What it does itself, if it can still say so.
    assert ("rank 1 of 3 is here" in said) == (stay in (LOOP, SLEEP))
    assert ("in stay" in said) == (stay in (LOOP, SLEEP))


SERVE = """
pids = comm.allgather(os.getpid())
parallel = pt.Parallel(strategy="server", timeout_s=3.0)
kwargs = {"batch_size": 8, "backend": "numpy", "parallel": parallel}
with pt.Trainer(Model(2, 2), pt.Adam(), **kwargs) as trainer:
    data = None
    if not trainer.serves:
        data = pt.Dataset.split(x, (x[:, 0] > 0.5).astype(int), comm=trainer.comm)
    trainer.fit(data, epochs=5)
"""


def test_server_that_is_stopped_is_named(tmp_path):
    said = ended(tmp_path, "loss", "os.kill(pids[2], signal.SIGSTOP)", SERVE)
    assert "  rank 2: " in said and "its process is stopped" in said


@pytest.mark.parametrize("stay", [SLEEP, pytest.param(LOOP, marks=pytest.mark.grid)])
def test_only_worker_that_stays_away_is_named(tmp_path, stay):
    code = SERVE.replace('"server"', '"server", servers=2')
    said = ended(tmp_path, "loss", stay, f"rank = 0\n{code}")
    assert "  rank 0: forward, step 3, for " in said
    assert re.search(r"^rank [12] of 3 has waited [3-9].* in Wait", said, re.MULTILINE)


APART = """
from pympi_train.comm.watch import journal

class Apart:  # a communicator whose ranks are on nodes of their own
    def __init__(self, comm):
        self.comm = comm

    def __getattr__(self, name):
        return getattr(self.comm, name)

    def Split_type(self, kind):
        return self.comm.Split(self.comm.rank)

begin = journal.Journal.__init__
journal.Journal.__init__ = lambda self, comm: begin(self, Apart(comm))
"""


@pytest.mark.parametrize("staleness", [0, pytest.param(2, marks=pytest.mark.grid)])
def test_only_worker_that_stays_away_on_another_node(tmp_path, staleness):
    how = f'"server", servers=2, staleness={staleness}'
    code = SERVE.replace('"server"', how)
    said = ended(tmp_path, "gradient", SLEEP, f"rank = 0\n{APART}\n{code}")
    assert re.search(r"^rank [12] of 3 has waited [3-9].* in Wait", said, re.MULTILINE)
    assert "who is missing runs on another node" in said


ON_GPUS = """
from pympi_train.data.feeds.make import make_feed
placement.make_feed = make_feed
parallel = pt.Parallel(strategy=STRATEGY, transport="nccl", timeout_s=3.0)
kwargs = {"batch_size": 8, "backend": "cuda", "parallel": parallel}
with pt.Trainer(Model(2, 60), pt.Adam(), **kwargs) as trainer:
    trainer.fit(data, epochs=5)
"""


@pytest.mark.gpu
@pytest.mark.skipif(gpus.PRESENT, reason="needs a GPU a rank")
@pytest.mark.parametrize(
    "strategy", ["allreduce", pytest.param("sharded", marks=pytest.mark.grid)]
)
def test_rank_that_the_others_gpus_wait_for_is_named(tmp_path, strategy):
    from mpi4py import MPI

    gpus.use()
    # Once here, so that the ranks need not compile while the others wait.
    x, y = make_data("classes")
    rows = pt.Dataset(x.astype(np.float32), y, comm=MPI.COMM_SELF)
    how = {"backend": "cuda", "comm": MPI.COMM_SELF}
    with pt.Trainer(pt.Softmax(5, 3), pt.Adam(), **how) as trainer:
        trainer.fit(rows, epochs=1)
    env = gpus.environment(STANDIN_NCCL=str(tmp_path))
    code = f"STRATEGY = {strategy!r}\n{ON_GPUS}"
    said = ended(tmp_path, "gradient", SLEEP, code, env)
    assert said.count("Not there, of the ranks of this node:") == 1
    assert "  rank 1: backward, step 3, for " in said and "in stay" in said
    assert re.search(r"^rank [02] of 3 has waited [3-9]", said, re.MULTILINE)


def test_rank_that_stops_before_it_frees_is_named(tmp_path):
    code = TRAIN.replace("    trainer.fit", "    calls = 3\n    trainer.fit")
    said = ended(tmp_path, "end", STOP, code + '    late("end")\n')
    assert "  rank 1: " in said and "its process is stopped" in said


def test_rank_that_never_has_its_rows_is_named(tmp_path):
    table = "a,b,y\n" + "".join(f"{i},{i % 5},{i % 2}\n" for i in range(40))
    (tmp_path / "data.csv").write_text(table)
    config = f"""
    [data]
    train = "{tmp_path}/data.csv"
    [model]
    kind = "softmax"
    [output]
    directory = "{tmp_path}/run"
    """
    said = ended(tmp_path, "load", SLEEP, f"CONFIG = {config!r}\n{LOAD}")
    assert "  rank 1: loading data, for " in said
    assert "in stay" in said


EXCHANGES = {
    "allreduce": pt.Parallel(strategy="allreduce", overlap="off"),
    "overlap": pt.Parallel(strategy="allreduce", overlap="on", bucket_bytes=1024),
    "hierarchical": pt.Parallel(strategy="hierarchical"),
    "sharded 1": pt.Parallel(strategy="sharded", stage=1),
    "sharded 2": pt.Parallel(strategy="sharded", stage=2),
    "local": pt.Parallel(strategy="local", local_steps=2),
    "exact": pt.Parallel(reduction="exact"),
}


class Stumbles(pt.MLP):
    """Raises on one rank, in its third loss on rows."""

    def __init__(self, fails):
        super().__init__(5, [8, 6], 3, dtype="float64")
        self._fails, self._calls = fails, 0

    def loss(self, params, batch):
        self._calls += len(batch.x) > 0
        if self._fails and self._calls >= 3:
            raise ZeroDivisionError("third loss")
        return super().loss(params, batch)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", EXCHANGES)
def test_error_in_forward_travels(comm, name):
    """With its traceback to all others, whatever the ranks exchange."""
    last = comm.size - 1
    data = dataset(comm, "even", *make_data("classes"))
    model = Stumbles(comm.rank == last)
    with pytest.raises((RemoteRankError, ZeroDivisionError)) as info:
        train(comm, model, pt.SGD(0.1), data, parallel=EXCHANGES[name])
    if comm.rank == last:
        assert type(info.value) is ZeroDivisionError
    else:
        assert info.value.rank == last
        assert 'raise ZeroDivisionError("third loss")' in info.value.traceback


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", EXCHANGES)
def test_calls_of_a_training_agree(comm, name):
    """No rank makes a call of its own: what debug would find."""
    data = dataset(comm, "hole", *make_data("classes"))
    parallel = replace(EXCHANGES[name], debug=True, check_every=2)
    train(comm, mlp(), pt.Adam(0.01), data, data, epochs=1, parallel=parallel)


@pytest.mark.mpi(min_size=2)
def test_calls_of_servers_and_workers_agree(comm):
    parallel = pt.Parallel(strategy="server", debug=True, check_every=2)
    with pt.Trainer(mlp(), pt.SGD(0.1), parallel=parallel, comm=comm) as trainer:
        data = None
        if not trainer.serves:
            data = dataset(trainer.comm, "even", *make_data("classes"))
        trainer.fit(data, epochs=2)


@pytest.mark.mpi(min_size=2)
def test_calls_of_lbfgs_agree(comm):
    data = dataset(comm, "even", *make_data("classes"))
    parallel = pt.Parallel(debug=True, check_every=1)
    train(comm, mlp(), pt.LBFGS(), data, epochs=2, parallel=parallel)


@pytest.mark.mpi(min_size=2)
def test_call_that_one_rank_leaves_out_is_found(comm):
    parallel = pt.Parallel(strategy="allreduce", overlap="off", debug=True)
    data = dataset(comm, "even", *make_data("classes"))
    last = comm.size - 1
    with pt.Trainer(mlp(), pt.SGD(0.1), parallel=parallel, comm=comm) as trainer:

        def on_epoch(record):
            if comm.rank != last:
                trainer.comm.Barrier()

        with pytest.raises(RankMismatchError) as info:
            trainer.fit(data, epochs=2, on_epoch=on_epoch)
    assert "rank 0 calls Barrier at " in str(info.value)
    assert f"but rank {last} " in str(info.value)
    assert "test_never_hang.py:" in str(info.value)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("check_every", [0, 1, 3])
def test_drift_ends_a_training(comm, check_every):
    data = dataset(comm, "even", *make_data("classes"))
    parallel = replace(EXCHANGES["allreduce"], check_every=check_every)
    steps = []

    def on_epoch(record):
        steps.append(record["step"])
        if comm.rank == 1 and len(steps) == 1:
            trainer.weights()["layers.1.weight"][0, 0] += 1

    with pt.Trainer(
        mlp(), pt.SGD(0.1), batch_size=52, parallel=parallel, comm=comm
    ) as trainer:
        if not check_every:
            trainer.fit(data, epochs=3, on_epoch=on_epoch)
            return
        with pytest.raises(DriftError, match="rank.* 1 ha") as info:
            trainer.fit(data, epochs=5, on_epoch=on_epoch)
    assert steps == [2]  # of two steps an epoch, the first after it, or the third
    assert is_agreed(info.value, comm)


@pytest.mark.mpi(min_size=2)
def test_drift_is_looked_for_where_steps_are_told_by_the_epoch(comm):
    """Two steps an epoch: the third comes before the second comparison, with none."""
    data = dataset(comm, "even", *make_data("classes"))
    parallel = replace(EXCHANGES["local"], check_every=3)
    steps = []

    def on_epoch(record):
        steps.append(record["step"])
        if comm.rank == 1 and len(steps) == 1:
            trainer.strategy._start[0] += 1  # what the next meeting sets out from

    with pt.Trainer(
        mlp(), pt.SGD(0.1), batch_size=52, parallel=parallel, comm=comm
    ) as trainer:
        with pytest.raises(DriftError, match="after step 4 .*rank.* 1 ha"):
            trainer.fit(data, epochs=5, on_epoch=on_epoch)
    assert steps == [2]
