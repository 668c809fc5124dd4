"""A GPU training resumed from a state, or run by ``step``, equals one ``fit``."""

import gpus
import numpy as np
import pytest
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.flat.state import State

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
CASES = {
    "allreduce": ({}, {}),
    "int8": ({"compression": "int8"}, {}),
    "sharded": ({"strategy": "sharded", "stage": 3}, {}),
    "local": ({"strategy": "local", "local_steps": 2}, {}),
    "float16": ({}, {"precision": "float16"}),
    "bfloat16": ({}, {"precision": "bfloat16"}),
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch, comm, tmp_path):
    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("name", CASES)
def test_two_and_five_steps_are_seven(comm, name):
    x, y = make_data("classes")
    data = dataset(comm, "hole", x.astype(np.float32), y)
    parallel, how = CASES[name]

    def run(last_step, state=None):
        with pt.Trainer(
            pt.MLP(5, [8], 3),
            pt.Adam(0.02),
            batch_size=24,
            parallel=pt.Parallel(**parallel),
            backend="cuda",
            comm=comm,
            **how,
        ) as trainer:
            if state is not None:
                trainer.load_state(state)

            def on_step(epoch, done, total):
                if (epoch - 1) * total + done == last_step - 1:
                    trainer.request_stop()

            trainer.fit(data, epochs=2 - trainer.epoch, on_step=on_step)
            return State.merged(comm.allgather(trainer.state()))

    want = run(7)
    found = run(7, run(2))
    progress, wanted = (state.values.pop("progress") for state in (found, want))
    assert len(progress.pop("spent")) == len(wanted.pop("spent"))
    assert progress.pop("cut") == wanted.pop("cut") == [103, 24]
    assert progress == pytest.approx(wanted)
    assert found.values == want.values
    assert found.regions.keys() == want.regions.keys()
    for key, regions in found.regions.items():
        for a, b in zip(regions, want.regions[key]):
            np.testing.assert_array_equal(a.array, b.array, err_msg=key)


@pytest.mark.mpi(min_size=2, max_size=3)
def test_files_of_cpu_ranks_are_read_on_gpus_and_back(comm, mpi_tmp_path):
    x, y = make_data("classes")
    data = dataset(comm, "hole", x.astype(np.float32), y)
    spread = {"parallel": pt.Parallel(strategy="sharded", stage=3), "backend": "numpy"}

    def train(first, last, **how):
        made_of = {"batch_size": 24, "comm": comm, **how}
        with pt.Trainer(pt.MLP(5, [8], 3), pt.Adam(0.02), **made_of) as trainer:
            if first is not None:
                trainer.load(mpi_tmp_path / first)
            trainer.fit(data, epochs=1)
            trainer.save(mpi_tmp_path / last)
            return {name: np.array(a) for name, a in trainer.weights().items()}

    train(None, "one", **spread)
    train("one", "two", backend="cuda")
    found = train("two", "three", **spread)
    for name in ("1", "2"):
        before = None if name == "1" else "1"
        train(before, name, backend="numpy")
    want = train("2", "3", backend="numpy")
    assert found.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-4, atol=1e-6)


@pytest.mark.mpi(min_size=2, max_size=3)
def test_the_loss_scale_goes_to_other_ranks_and_strategies(comm):
    """From all ranks to one, and through a training in float32 that has no scale."""
    from mpi4py import MPI

    x, y = make_data("classes")

    def steps(comm, n, state=None, **how):
        data = dataset(comm, "even", x.astype(np.float32), y)
        made_of = {"batch_size": 24, "backend": "cuda", "comm": comm, **how}
        with pt.Trainer(pt.MLP(5, [8], 3), pt.Adam(0.02), **made_of) as trainer:
            if state is None:
                trainer.precision.scale.value /= 8
                trainer.precision.scale.skipped = 3
            else:
                trainer.load_state(state)
            trainer.fit(data, epochs=n)
            state = State.merged(comm.allgather(trainer.state()))
        return state, state.values["numbers"].get("loss_scale")

    state, want = steps(comm, 1, precision="float16")
    assert (want["skipped"], want["good"]) == (3, 5)
    other, found = steps(MPI.COMM_SELF, 2, state, precision="float16")
    assert found == {**want, "good": 15}
    _, found = steps(comm, 1, other, precision="float16")
    assert found == {**want, "good": 20}
    sharded = pt.Parallel(strategy="sharded", stage=3)
    other, found = steps(comm, 1, state, parallel=sharded)
    assert found is None
    _, found = steps(comm, 1, other, precision="float16")
    assert (found["skipped"], found["good"]) == (0, 5)  # its own, as for a fresh start


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("precision", ["full", "float16"])
def test_steps_by_hand_are_those_of_fit(comm, precision):
    x, y = make_data("classes")
    data = dataset(comm, "hole", x.astype(np.float32), y)
    how = {"batch_size": 103, "backend": "cuda", "precision": precision, "comm": comm}
    with pt.Trainer(pt.MLP(5, [8], 3), pt.Adam(0.02), **how) as trainer:
        trainer.fit(data, epochs=3)
        want = trainer.params.copy()
    with pt.Trainer(pt.MLP(5, [8], 3), pt.Adam(0.02), **how) as trainer:
        for _ in range(3):
            trainer.step(pt.Batch(data.x, data.y))
        np.testing.assert_array_equal(trainer.params, want)


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("name", CASES)
def test_training_starts_from_given_weights(comm, name):
    """Parameters, and the copies that steps compute with."""
    x, y = make_data("classes")
    data = dataset(comm, "hole", x.astype(np.float32), y)
    rng, (parallel, how) = np.random.default_rng(1), CASES[name]
    made_of = pt.MLP(5, [8], 3), pt.Adam(0.02)
    found = {}
    for backend, keys in (
        ("numpy", {}),
        ("cuda", {"parallel": pt.Parallel(**parallel), **how}),
    ):
        with pt.Trainer(*made_of, backend=backend, comm=comm, **keys) as trainer:
            if not found:
                shapes = {k: view.shape for k, view in trainer.weights().items()}
                given = {k: rng.normal(size=shape) for k, shape in shapes.items()}
            trainer.start_from(given)
            for key, view in trainer.weights().items():
                np.testing.assert_array_equal(view, given[key].astype(np.float32))
            found[backend] = trainer.predict(data)
    atol = 0.1 if "precision" in how else 1e-5
    np.testing.assert_allclose(found["cuda"], found["numpy"], atol=atol)
