"""A traced training leaves one file of all ranks, also when it ends early."""

import os
from time import perf_counter

import gpus
import numpy as np
import pytest
from small_runs import ADAM, LBFGS, train_small

from pympi_train.errors import DataError, DivergenceError
from pympi_train.runs import tracing
from pympi_train.trace.clocks import Reading
from pympi_train.trace.events import KINDS
from pympi_train.tracetools.read import read_tracks
from pympi_train.tracetools.summary import summarise_trace

CASES = {
    "allreduce": ["parallel.strategy=allreduce"],
    "sharded": ["parallel.strategy=sharded", "parallel.stage=3"],
    "hierarchical": ["parallel.strategy=hierarchical"],
    "server": ["parallel.strategy=server"],
    "local": ["parallel.strategy=local", "parallel.local_steps=2"],
    "exact": ["parallel.reduction=exact"],
    "without the watchdog": ["parallel.timeout_s=0"],
    "lbfgs": [*LBFGS, "model.l2=0.01", "train.epochs=9"],
}
BACKWARD = KINDS.index("backward")
STEPS = ("input", "forward", "backward", "update")


def train(folder, comm, *overrides, **how):
    return train_small(folder, comm, *ADAM, "output.trace=true", *overrides, **how)


def tracks_of(folder):
    return read_tracks(folder / "run" / "trace.json")[1]


def kinds_of(track):
    return {KINDS[kind] for kind in track.kinds}


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("case", CASES)
def test_each_strategy_is_traced_on_all_ranks(comm, folder, case):
    result = train(folder, comm, *CASES[case])
    tracks = tracks_of(folder)
    assert [track.rank for track in tracks] == list(range(comm.size))
    workers = tracks[:-1] if case == "server" else tracks
    want = {*STEPS, "collective", "evaluation"}
    for track in workers:
        assert want <= kinds_of(track)
        assert track.steps.min() == 1 and track.steps.max() >= result["steps"]
        assert (np.diff(track.starts_s) >= 0).all() and track.starts_s[0] >= 0
    if case == "server":
        assert {"wait", "update"} <= kinds_of(tracks[-1])
    found = summarise_trace(folder / "run")
    assert 0 < found["steps"] < result["steps"] and found["nodes"] == 1
    assert found["steps_in_all"] == result["steps"] - 1  # without the first
    assert found["critical_path"] or case == "server"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("case", ["allreduce", "server"])
def test_a_resumed_training_traces_its_own_steps(comm, folder, case):
    first = train(folder, comm, *CASES[case], "train.epochs=2")
    last = train(folder, comm, *CASES[case], resume="newest")
    assert last["steps"] == 2 * first["steps"]
    for track in tracks_of(folder):  # that of a server too
        assert track.steps.min() == first["steps"] + 1
        assert track.steps.max() == last["steps"] + 1


@pytest.mark.mpi(min_size=2)
def test_each_bucket_flies_from_backward_to_the_wait_for_it(comm, folder):
    wide = "model.kind=mlp", "model.hidden=[16,16]", "parallel.bucket_bytes=1024"
    train(folder, comm, "parallel.overlap=on", *wide)
    for track in tracks_of(folder):
        steps, n_buckets = np.unique(track.flights[:, 0], return_counts=True)
        assert set(steps) == set(track.steps[track.kinds == KINDS.index("forward")])
        assert len(set(n_buckets)) == 1 and n_buckets[0] > 1
        calls = np.isin(track.kinds, [KINDS.index(k) for k in ("collective", "wait")])
        for step, start_s, end_s in track.flights:
            own = track.steps == step
            assert start_s >= track.starts_s[own & (track.kinds == BACKWARD)].min()
            assert start_s < end_s <= track.ends_s[own & calls].max() + 1e-3
    found = summarise_trace(folder / "run")["buckets"]
    assert found["per_step"] == n_buckets[0] and found["median_s"] > 0
    assert 0 < found["hidden_share"] < 1


@pytest.mark.mpi(min_size=2)
def test_the_file_has_the_clock_of_rank_0(comm, folder, monkeypatch):
    offset_s, drift_s, readings = 1000.0 * comm.rank, 500.0 * (comm.rank > 0), []

    def read_clock(trace):  # as if each rank had a node with a clock of its own
        found_s = offset_s + drift_s * len(readings)
        readings.append(Reading(perf_counter(), found_s, 1e-3 * comm.rank))
        return comm.rank, readings[-1]

    monkeypatch.setattr(tracing.RunTrace, "_read_clock", read_clock)
    wide = "model.kind=mlp", "model.hidden=[16,16]", "parallel.bucket_bytes=1024"
    train(folder, comm, "parallel.overlap=on", *wide)
    assert len(readings) == 2
    about, tracks = read_tracks(folder / "run" / "trace.json")
    assert about["clock_error_us"] == 1000.0 * (comm.size - 1)
    assert [track.node for track in tracks] == list(range(comm.size))
    first_s, *others_s = map(ends_of_steps, tracks)
    assert first_s.max() < 500  # seconds of rank 0 itself
    for rank, ends_s in enumerate(others_s, 1):
        shifts_s = ends_s - first_s  # of sums, which all ranks leave together
        assert 1000 * rank < shifts_s.min() + 1 and shifts_s.max() < 1000 * rank + 501
        assert shifts_s[-1] - shifts_s[0] > 50  # a tenth of the drift
    for track in tracks:
        assert track.flights[:, 1].min() >= track.starts_s[0]
        assert track.flights[:, 2].max() <= track.ends_s[-1]


def ends_of_steps(track):
    """Return when a rank leaves the last collective call of each step, in seconds."""
    is_call = track.kinds == KINDS.index("collective")
    steps = np.unique(track.steps[track.kinds == BACKWARD])
    ends_s = [track.ends_s[is_call & (track.steps == step)].max() for step in steps]
    return np.array(ends_s)


@pytest.mark.mpi(min_size=2)
def test_checkpoints_are_traced(comm, folder):
    counts = []
    for name, how in ("no", []), ("saved", ["checkpoint.every_steps=6"]):
        train(folder, comm, *how, name=name)
        tracks = read_tracks(folder / name / "trace.json")[1]
        own = [track.kinds == KINDS.index("checkpoint") for track in tracks]
        counts.append([kinds.sum() for kinds in own])
        for track, is_own in zip(tracks, own):
            assert (track.ends_s > track.starts_s)[is_own].all()
    # At the end of a training the ranks agree on what to save, without checkpoints too.
    for without, saved in zip(*counts):
        assert saved >= without + 3 > 3


@pytest.mark.mpi(min_size=2)
def test_an_error_of_all_ranks_leaves_a_trace(comm, folder):
    with pytest.raises(DivergenceError):
        train(folder, comm, "optimizer.learning_rate=1e38")
    assert len(tracks_of(folder)) == comm.size


@pytest.mark.mpi(min_size=2)
def test_a_file_that_cannot_be_written_is_one_error(comm, folder, monkeypatch):
    def fail(file, data):
        return OSError(28, os.strerror(28))

    monkeypatch.setattr(tracing, "_write", fail)
    with pytest.raises(DataError, match="trace.json: cannot be written: No space"):
        train(folder, comm)
    assert sorted(folder.glob("run/*trace*")) == []


@pytest.mark.mpi(min_size=2)
def test_off_by_default(comm, folder):
    train_small(folder, comm, *ADAM)
    assert not (folder / "run" / "trace.json").exists()
    with pytest.raises(DataError, match="was not traced; set .output. trace = true"):
        summarise_trace(folder / "run")


def test_texts_longer_than_a_piece_arrive_in_order(tmp_path, monkeypatch):
    sizes = {1: 2**16, 64: 2**16, 1000: 4194, 10**5: 1024}
    assert {n: tracing.spans_for(n) for n in sizes} == sizes
    pieces = tracing._pieces(2 * tracing.PIECE_BYTES + 5)
    assert [p.stop - p.start for p in pieces] == [tracing.PIECE_BYTES] * 2 + [5]
    assert tracing._pieces(0) == []


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
def test_steps_of_a_gpu_are_traced(comm, folder):
    gpus.use()
    train(folder, comm, "train.backend=cuda")
    assert set(STEPS) | {"evaluation"} <= kinds_of(tracks_of(folder)[0])
