"""Exact mode: the same bits with every number of ranks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from serial import CASES, EPOCHS, make_data, mlp, require_serial, softmax, train
from spread import SPREADS, dataset, own

import pympi_train as pt
from pympi_train.data.groups import row_cuts
from pympi_train.errors import ConfigError, DivergenceError, RemoteRankError

SCRIPT = Path(__file__).parents[1] / "harness" / "exact_hashes.py"
EXACT = pt.Parallel(reduction="exact")
FAST = [(1, ""), (3, ""), (5, "")]  # ranks and threads that also run a plain sum
_found = {}


def hashes(mpirun, folder, n, threads=""):
    """Return what the script prints on ``n`` ranks; cached."""
    if (n, threads) not in _found:
        argv = [sys.executable, str(SCRIPT), str(folder), "exact"]
        argv += ["fast"] if (n, threads) in FAST else []
        # Empty counts as unset.
        code, out, err = mpirun(n, argv, env={"OMP_NUM_THREADS": threads})
        assert code == 0, err
        _found[n, threads] = json.loads(out.splitlines()[-1])
    return _found[n, threads]


@pytest.mark.parametrize(
    "n, threads",
    [
        (3, ""),
        (5, ""),
        (3, "2"),
        *(pytest.param(n, "", marks=pytest.mark.grid) for n in (2, 4, 8)),
        pytest.param(1, "2", marks=pytest.mark.grid),
    ],
)
def test_weights_and_metrics_have_the_bits_of_one_rank(mpirun, tmp_path, n, threads):
    got, want = (hashes(mpirun, tmp_path, *of) for of in ((n, threads), (1, "")))
    assert got["exact"] == want["exact"]


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.grid)])
def test_a_plain_sum_has_other_bits(mpirun, tmp_path, n):
    """Shows that the test above can fail: MPI's order depends on the ranks."""
    got, want = (hashes(mpirun, tmp_path, ranks)["fast"] for ranks in (n, 1))
    assert all(got[case][0] != want[case][0] for case in want)
    for case in want:
        assert got[case][1] == pytest.approx(want[case][1], rel=1e-4)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("name", CASES)
def test_equals_one_process_to_rounding(comm, name, spread):
    require_serial(comm, name, spread, EXACT)


@pytest.mark.parametrize("n_groups", [1, 3, 200])
def test_one_rank_equals_itself_without(n_groups):
    MPI = pytest.importorskip("mpi4py.MPI")
    parallel = pt.Parallel(reduction="exact", virtual_shards=n_groups)
    require_serial(MPI.COMM_SELF, "mlp-accumulated", "even", parallel)


def run(comm, spread, model, optimizer, data, **kwargs):
    """Return parameters, and the records without times and bytes."""
    kwargs = {"micro_batch_size": 4, "parallel": EXACT, **kwargs}
    params, records = train(comm, model, optimizer, data, data, **kwargs)
    for record in records:
        for key in [key for key in record if key.endswith(("_s", "_bytes"))]:
            del record[key]
    return params.tobytes(), records


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", [3, 103])
@pytest.mark.parametrize(
    "kind, make_model, make_optimizer",
    [
        ("classes", mlp, lambda: pt.LBFGS(tolerance=0)),
        ("numbers", lambda: mlp("gelu", "regression"), lambda: pt.GD(0.01)),
        ("numbers", lambda: mlp("tanh", "regression"), lambda: pt.AdamW(0.01)),
    ],
)
def test_any_spread_has_the_bits_of_one_rank(
    comm, kind, make_model, make_optimizer, n, spread
):
    from mpi4py import MPI

    x, y = (np.asfortranarray(array[:n]) for array in make_data(kind))
    weights = np.random.default_rng(1).random(n)
    data = dataset(comm, spread, x, y, weights)
    got = run(comm, spread, make_model(), make_optimizer(), data)
    alone = dataset(MPI.COMM_SELF, "even", x, y, weights)
    want = run(MPI.COMM_SELF, spread, make_model(), make_optimizer(), alone)
    assert got == want


@pytest.mark.mpi(min_size=2)
def test_a_model_of_ones_own(comm):
    from mpi4py import MPI

    def gradient(params, batch, grads):
        error = batch.x @ params["w"] - batch.y
        grads["w"][...] = batch.x.T @ error
        return 0.5 * float(error @ error)

    def model():
        return pt.FunctionModel([pt.Tensor("w", (5,))], gradient, dtype="float64")

    x, y = make_data("numbers")
    y = np.ascontiguousarray(y[:, 0])
    got = run(comm, "hole", model(), pt.SGD(0.01), dataset(comm, "hole", x, y))
    alone = dataset(MPI.COMM_SELF, "even", x, y)
    assert got == run(MPI.COMM_SELF, "even", model(), pt.SGD(0.01), alone)
    assert len(got[1]) == EPOCHS


@pytest.mark.mpi(min_size=2)
def test_more_ranks_than_groups_is_refused(comm):
    parallel = pt.Parallel(reduction="exact", virtual_shards=comm.size - 1)
    with pytest.raises(ConfigError, match=f"virtual_shards to {comm.size} or more"):
        pt.Trainer(softmax(), pt.Adam(0.01), comm=comm, parallel=parallel)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_an_error_of_one_rank_reaches_all(comm, monkeypatch, where):
    """Also an error in backward, which precedes the control exchange."""
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    model, calls = softmax(), []
    plain = getattr(model, where)

    def fail(*args):
        calls.append(args)
        if len(calls) > 1:  # the first is fit's rehearsal
            raise OSError("no such thing")
        return plain(*args)

    with pt.Trainer(model, pt.Adam(0.01), comm=comm, parallel=EXACT) as trainer:
        trainer.fit(data, epochs=1)
        before, steps = trainer.params.copy(), trainer.steps
        expected = RemoteRankError
        if comm.rank == comm.size - 1:
            monkeypatch.setattr(model, where, fail)
            expected = OSError
        with pytest.raises(expected, match="no such thing"):
            trainer.fit(data, epochs=1)
        monkeypatch.undo()
        assert (trainer.params == before).all() and trainer.steps == steps
        trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=2)
def test_divergence_leaves_the_parameters(comm):
    data = dataset(comm, "even", *make_data("classes"))
    with pt.Trainer(softmax(), pt.Adam(0.01), comm=comm, parallel=EXACT) as trainer:
        trainer.params[:] = np.finfo(trainer.params.dtype).max
        before = trainer.params.copy()
        with pytest.raises(DivergenceError, match="step 1"):
            trainer.fit(data, epochs=1)
        assert (trainer.params == before).all()


@pytest.mark.mpi(min_size=2)
def test_prepare_wants_rows_in_their_places(comm):
    x, y = make_data("classes")
    n = len(x)
    cuts = row_cuts(n, 8, comm.size)
    mine = slice(cuts[comm.rank], cuts[comm.rank + 1])
    placed = pt.Dataset(x[mine], y[mine], comm=comm)
    with pt.Trainer(softmax(), pt.Adam(0.01), comm=comm, parallel=EXACT) as trainer:
        weight, loss = trainer.prepare(placed)(slice(0, len(placed)))
        assert weight == n and loss > 0
        other = own(comm, n, "last")
        with pytest.raises(ConfigError, match="rows to be those of its groups"):
            trainer.prepare(pt.Dataset(x[other], y[other], comm=comm))


@pytest.mark.mpi(min_size=2)
def test_what_was_chosen_and_sent(comm):
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    with pt.Trainer(softmax(), pt.Adam(0.01), comm=comm, parallel=EXACT) as trainer:
        record = trainer.fit(data, epochs=1)[0]
        assert trainer.resolved.strategy == "allreduce"
        assert trainer.exchange["exchange"] == "tree" and trainer.n_threads == 1
        n_bytes = trainer.params.nbytes
    if comm.size in (2, 4):  # one node of the tree per rank
        assert record["sent_bytes"] == 2 * n_bytes * (comm.size - 1) / comm.size
