"""The state of a training: what is trained on from it is what it would have been.

103 rows in batches of 24 are five steps an epoch. Two of them are taken, then the
state goes into fresh objects that take five more, into the next epoch.
"""

import numpy as np
import pytest
import strategies
from numpy.testing import assert_allclose, assert_array_equal
from serial import make_data
from spread import dataset

import pympi_train as pt
from pympi_train.errors import (
    ConfigError,
    DataError,
    RankMismatchError,
    RemoteRankError,
)
from pympi_train.flat.state import State
from pympi_train.optim.schedule import Cosine
from pympi_train.parallel import allreduce
from pympi_train.parallel import overlap as overlap_module
from pympi_train.parallel import trials
from pympi_train.trace.laps import PHASES

PER_EPOCH = 5
OPTIMIZERS = {
    "sgd": lambda: pt.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: pt.Adam(0.02),
    "adamw": lambda: pt.AdamW(0.02),
}
PLAIN = strategies.PLAIN
LOSSY = {
    **strategies.LOSSY,
    "nesterov": {**strategies.LOCAL, "outer": "nesterov"},
    "stale": {"strategy": "server", "staleness": 1},
}
STRATEGIES = {**PLAIN, **LOSSY}


def make_trainer(comm, optimizer, how):
    model = pt.MLP(5, [24, 24], 3, dtype="float64")  # wide enough for PowerSGD
    return pt.Trainer(
        model,
        OPTIMIZERS[optimizer](),
        batch_size=24,
        schedule=Cosine(floor=0.1),
        l2=0.01,
        parallel=pt.Parallel(**STRATEGIES[how]),
        backend="numpy",
        comm=comm,
    )


def fit_until(trainer, last_step, spread="hole", **kwargs):
    """Take steps until the training has so many."""

    def on_step(epoch, done, total):
        assert total == PER_EPOCH
        if (epoch - 1) * PER_EPOCH + done == last_step - 1:
            trainer.request_stop()

    data = None
    if not trainer.serves:
        data = dataset(trainer.comm, spread, *make_data("classes"))
    left = -(-last_step // PER_EPOCH) - trainer.epoch
    return trainer.fit(data, epochs=left, on_step=on_step, **kwargs)


def merged(comm, trainer):
    return State.merged(comm.allgather(trainer.state()))


def trained(comm, optimizer, how, last_step, state=None, spread="hole"):
    """Return the weights after so many steps, from ``state`` on, and the state."""
    with make_trainer(comm, optimizer, how) as trainer:
        if state is not None:
            trainer.load_state(state)
        # The schedule is that of the whole training, whichever part of it this is.
        trainer.progress.total_updates = 2 * PER_EPOCH
        records = fit_until(trainer, last_step, spread)
        weights = [view.copy() for view in trainer.weights().values()]
        return weights, merged(comm, trainer), records


def without_times(state):
    """The values of a state; the seconds spent on an epoch are never the same."""
    values = {**state.values, "progress": {**state.values["progress"]}}
    assert len(values["progress"].pop("spent")) in (0, len(PHASES) + 2)
    return values


def require_same_states(found, want):
    assert without_times(found) == without_times(want)
    assert found.regions.keys() == want.regions.keys()
    for name, regions in found.regions.items():
        for a, b in zip(regions, want.regions[name]):
            assert a.box == b.box
            assert_array_equal(a.array, b.array, err_msg=name)


CASES = [
    *((optimizer, how) for optimizer in OPTIMIZERS for how in PLAIN),
    *(("adam", how) for how in LOSSY if how != "stale"),
]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer, how", CASES)
def test_two_and_five_steps_are_seven(comm, optimizer, how):
    weights, want, records = trained(comm, optimizer, how, 7)
    _, state, _ = trained(comm, optimizer, how, 2)
    assert state.values["progress"]["batch"] == 2
    found, end, resumed = trained(comm, optimizer, how, 7, state)
    for a, b in zip(found, weights):
        assert_array_equal(a, b)
    if how == "local" or how.startswith(("local", "nesterov")):  # sums of several ranks
        progress = end.values["progress"], want.values["progress"]
        for key in ("weight", "loss"):
            a, b = (numbers.pop(key) for numbers in progress)
            assert a == pytest.approx(b, rel=1e-12)
    require_same_states(end, want)
    assert [r["epoch"] for r in resumed] == [r["epoch"] for r in records]
    for a, b in zip(resumed, records):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-12)
        assert (a["step"], a["samples"]) == (b["step"], b["samples"])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["local", "local-int8"])
def test_ranks_that_made_other_numbers_of_updates(comm, how):
    """All rows are on the last rank: the first makes none."""
    weights, _, _ = trained(comm, "adam", how, 7, spread="last")
    _, state, _ = trained(comm, "adam", how, 2, spread="last")
    found, _, _ = trained(comm, "adam", how, 7, state, spread="last")
    for a, b in zip(found, weights):
        assert_array_equal(a, b)


@pytest.mark.mpi(min_size=2)
def test_local_steps_and_others_take_each_others_states(comm):
    """Each rank's optimizer state from one for all, and one for all from their mean."""
    _, plain, _ = trained(comm, "adam", "allreduce", 2)
    _, local, _ = trained(comm, "adam", "local", 2)
    name = "optimizer/m/layers.0.weight"
    (one,), many = plain.regions[name], local.regions[name]
    assert len(many) == comm.size
    with make_trainer(comm, "adam", "local") as trainer:
        trainer.load_state(plain)
        found = merged(comm, trainer)
        assert [r.array[0].tolist() for r in found.regions[name]] == [
            one.array.tolist()
        ] * comm.size
        assert trainer.optimizer.step == 2
        fit_until(trainer, 7)
    with make_trainer(comm, "adam", "allreduce") as trainer:
        trainer.load_state(local)
        (found,) = merged(comm, trainer).regions[name]
        assert_allclose(found.array, np.mean([r.array[0] for r in many], axis=0))
        fit_until(trainer, 7)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("how", ["allreduce", "sharded-2", "hierarchical", "server"])
def test_a_state_goes_to_other_ranks_and_strategies(comm, how):
    """From three ranks to two, each with another strategy, and back."""
    weights, _, _ = trained(comm, "adam", "allreduce", 7)
    _, state, _ = trained(comm, "adam", how, 2)
    small = comm.Split(comm.rank < 2, comm.rank)
    for other in ("sharded-3", "allreduce", "server"):
        if comm.rank < 2:
            found, end, _ = trained(small, "adam", other, 4, state)
        end = comm.bcast(end if comm.rank == 0 else None)
        found, _, _ = trained(comm, "adam", how, 7, end)
        for a, b in zip(found, weights):
            assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    small.Free()


@pytest.mark.mpi(min_size=2)
def test_exact_bits_hold_through_other_numbers_of_ranks(comm):
    from mpi4py import MPI

    weights, _, _ = trained(comm, "adam", "exact", 7)
    _, state, _ = trained(comm, "adam", "exact", 2)
    found, state, _ = trained(MPI.COMM_SELF, "adam", "exact", 4, state)
    found, _, _ = trained(comm, "adam", "exact", 7, state)
    for a, b in zip(found, weights):
        assert_array_equal(a, b)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["int8", "topk", "powersgd"])
def test_what_compression_has_lost_is_lost_to_no_number_of_ranks(comm, kind):
    """On one rank nothing is lost any more: the next gradient pays for all."""
    from mpi4py import MPI

    from pympi_train.comm.sums.compress import compressed_sum

    _, state, _ = trained(comm, "adam", f"allreduce-{kind}", 2)

    def owed(state):
        totals = {}
        for key in ("residual", "residual_of_sum"):
            for name, regions in state.regions.items():
                if name.startswith(f"{key}/"):
                    tensor = name.removeprefix(f"{key}/")
                    for region in regions:
                        box, array = region.box, region.array
                        if key == "residual":
                            box, array = box[1:], array[0]
                        shape = region.shape[key == "residual" :]
                        total = totals.setdefault(tensor, np.zeros(shape))
                        total[tuple(slice(*pair) for pair in box)] += array
        return totals

    want = owed(state)
    assert max(np.abs(total).max() for total in want.values()) > 0
    with make_trainer(MPI.COMM_SELF, "adam", f"allreduce-{kind}") as alone:
        alone.load_state(state)
        again = owed(alone.state())
        for name, total in want.items():
            assert_allclose(again[name], total, rtol=1e-12, atol=1e-15)
        layout = alone.model.layout
        plain = compressed_sum(kind, MPI.COMM_SELF, layout, alone.backend.ops)
        held = plain.holdings(layout)
        for holding in held:
            array = state.array_of(holding)
            holding.array[:] = array
        plain.loaded()
        block = np.zeros(layout.size)
        plain.sum(block)
        for name, view in layout.named(block).items():
            assert_allclose(view, want[name], rtol=1e-12, atol=1e-15)
        block[:] = 0
        plain.sum(block)
        assert not block.any()
    with make_trainer(comm, "adam", f"allreduce-{kind}") as trainer:
        trainer.load_state(state)
        require_same_states(merged(comm, trainer), state)


def run_lbfgs(comm, n, state=None, **parallel):
    """Return the state after n more iterations."""
    data = dataset(comm, "hole", *make_data("classes"))
    with pt.Trainer(
        pt.MLP(5, [8], 3, dtype="float64"),
        pt.LBFGS(history=3),
        l2=0.01,
        parallel=pt.Parallel(**parallel),
        backend="numpy",
        comm=comm,
    ) as trainer:
        if state is not None:
            trainer.load_state(state)
        trainer.fit(data, epochs=n)
        assert trainer.ended == "epochs"
        return merged(comm, trainer)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("parallel", [{}, {"reduction": "exact"}])
def test_lbfgs_goes_on_with_its_pairs(comm, parallel):
    want, found = run_lbfgs(comm, 9, **parallel), None
    for n in (2, 3, 4):
        found = run_lbfgs(comm, n, found, **parallel)
    assert found.values["numbers"]["n_pairs"] == 3
    require_same_states(found, want)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("first, second", [("fast", "exact"), ("exact", "fast")])
def test_lbfgs_goes_on_with_its_pairs_elsewhere(comm, first, second):
    """On one rank with another reduction, and back: what differs is rounding."""
    from mpi4py import MPI

    want = run_lbfgs(comm, 9, reduction=first)
    state = run_lbfgs(comm, 4, reduction=first)
    state = run_lbfgs(MPI.COMM_SELF, 3, state, reduction=second)
    found = run_lbfgs(comm, 2, state, reduction=first)
    assert found.values["numbers"]["n_pairs"] == 3
    assert found.regions.keys() == want.regions.keys()
    for name, regions in want.regions.items():
        (one,), (other,) = found.regions[name], regions
        assert_allclose(one.array, other.array, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "how",
    ["allreduce", "hierarchical", "sharded-1", "sharded-3", "local", "server", "exact"]
    + ["allreduce-int8", "local-topk"],
)
def test_early_stopping_goes_back_to_all_of_the_best_epoch(comm, how):
    """Rows that are noise: accuracy is soon no better. Once in one go, once in two."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80, 5)), rng.integers(0, 3, 80)

    def run(epochs, *, stops_at=(), **kwargs):
        state, records = None, []
        for stop in (*stops_at, None):
            with make_trainer(comm, "adam", how) as trainer:
                if state is not None:
                    trainer.load_state(state)
                train = held = None
                if not trainer.serves:
                    train = dataset(trainer.comm, "even", *(a[:49] for a in rows))
                    held = dataset(trainer.comm, "even", *(a[49:] for a in rows))

                def on_step(epoch, done, total):
                    if trainer.steps == stop:
                        trainer.request_stop()

                trainer.progress.total_updates = 100
                left = epochs - trainer.epoch
                records += trainer.fit(
                    train, held, epochs=left, on_step=on_step, **kwargs
                )
                state = merged(comm, trainer)
                kept = trainer.kept
        return state, records, kept

    state, records, kept = run(30, patience=3)
    n_epochs = comm.bcast(len(records))
    best = comm.bcast(kept and kept["epoch"])
    assert best < n_epochs == best + 3 < 30
    want, _, _ = run(best)
    assert state.regions.keys() == want.regions.keys()
    for name in state.regions:
        for a, b in zip(state.regions[name], want.regions[name]):
            assert_array_equal(a.array, b.array, err_msg=name)
    # Three steps an epoch. With local steps the ranks stop where they meet.
    stops = 3 * (best + 1) + 1
    again, others, _ = run(30, patience=3, stops_at=[stops - 1])
    assert len(others) == len(records)
    require_same_states(again, state)


@pytest.mark.mpi(min_size=2)
def test_a_state_taken_after_each_epoch_knows_the_best_one(comm):
    """Trained on from any of them, the training ends as it would have."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 5)), rng.integers(0, 3, 80)
    parts = slice(0, 49), slice(49, 80)
    train, held = (dataset(comm, "even", x[rows], y[rows]) for rows in parts)
    states = []

    def run(state=None, on_epoch=None):
        with make_trainer(comm, "adam", "allreduce") as trainer:
            if state is not None:
                trainer.load_state(state)
            call = None if on_epoch is None else on_epoch(trainer)
            left = 30 - trainer.epoch
            trainer.fit(train, held, epochs=left, patience=3, on_epoch=call)
            return trainer.kept["epoch"], trainer.epoch, trainer.params.copy()

    def taking(trainer):
        return lambda record: states.append(merged(comm, trainer))

    best, last, params = run(on_epoch=taking)
    assert last == best + 3 < 30
    for state in states:
        found = run(state)
        assert found[:2] == (best, last)
        assert_array_equal(found[2], params)


@pytest.mark.mpi(min_size=2)
def test_an_epoch_goes_on_as_it_was_cut(comm):
    _, state, _ = trained(comm, "adam", "allreduce", 2)
    data = dataset(comm, "hole", *make_data("classes"))
    model = pt.MLP(5, [24, 24], 3, dtype="float64")
    with pt.Trainer(model, pt.Adam(0.02), batch_size=32, comm=comm) as trainer:
        trainer.load_state(state)
        with pytest.raises(ConfigError, match="batches of 24 of 103 rows, and cannot"):
            trainer.fit(data, epochs=1)
    with make_trainer(comm, "adam", "allreduce") as trainer:
        trainer.load_state(state)
        fewer = dataset(comm, "hole", *(a[:50] for a in make_data("classes")))
        with pytest.raises(ConfigError, match="batches of 24 of 50: end it first"):
            trainer.fit(fewer, epochs=1)
        trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("odd", [None, "other values"])
def test_what_is_no_merged_state_on_some_rank_is_refused_on_all(comm, odd):
    _, state, _ = trained(comm, "adam", "allreduce", 2)
    if comm.rank == 1:
        values = {**state.values, "numbers": {"updates": 5}}
        state = None if odd is None else State(values, state.regions)
    with make_trainer(comm, "adam", "allreduce") as trainer:
        with pytest.raises((DataError, RankMismatchError), match="State"):
            trainer.load_state(state)
        assert trainer.steps == 0


@pytest.mark.mpi(min_size=2)
def test_what_does_not_fit_is_refused_and_changes_nothing(comm):
    _, state, _ = trained(comm, "adam", "allreduce", 2)
    with make_trainer(comm, "sgd", "allreduce") as trainer:
        before = trainer.params.copy()
        with pytest.raises(DataError, match="optimizer SGD, got Adam"):
            trainer.load_state(state)
        state.values["optimizer"] = "SGD"
        with pytest.raises(DataError, match="optimizer/velocity/.*found nothing"):
            trainer.load_state(state)
        assert_array_equal(trainer.params, before)
        assert trainer.steps == 0
    wide = pt.MLP(5, [24, 25], 3, dtype="float64")
    state.values["optimizer"] = "Adam"
    with pt.Trainer(wide, pt.Adam(), comm=comm) as trainer:
        with pytest.raises(DataError, match=r"expected shape \(24, 25\)"):
            trainer.load_state(state)
    narrow = pt.MLP(5, [24], 3, dtype="float32")
    with pt.Trainer(narrow, pt.Adam(), comm=comm) as trainer:
        with pytest.raises(DataError, match="parameters of float32, got float64"):
            trainer.load_state(state)


@pytest.mark.mpi(min_size=2)
def test_local_steps_are_saved_where_ranks_meet(comm):
    with make_trainer(comm, "sgd", "local") as trainer:

        def on_step(epoch, done, total):
            if done == 1:
                trainer.state()

        data = dataset(comm, "even", *make_data("classes"))
        with pytest.raises((RuntimeError, RemoteRankError), match="last sync"):
            trainer.fit(data, epochs=1, on_step=on_step)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("overlap", ["off", "on"])
def test_what_was_measured_is_chosen_again(comm, monkeypatch, overlap):
    """Whatever the clock says now: sums in another order have other bits."""
    monkeypatch.setattr(allreduce, "fits", lambda comm, block: False)
    monkeypatch.setattr(trials, "LEAST_BYTES", 64)
    monkeypatch.setattr(trials, "BUDGET_S", 0.01)
    monkeypatch.setattr(overlap_module, "MAX_COUNT", 64)
    x, y = make_data("classes")
    data, parallel = dataset(comm, "even", x, y), pt.Parallel(strategy="allreduce")

    def make(*winners):
        monkeypatch.setattr(
            trials,
            "fastest",
            lambda seconds, default: next(w for w in winners if w in seconds),
        )
        model = pt.MLP(5, [8, 6], 3, dtype="float64")
        return pt.Trainer(model, pt.SGD(0.1), parallel=parallel, comm=comm)

    with make("slices", overlap) as trainer:
        trainer.fit(data, epochs=20)
        assert trainer.exchange["overlap"] == overlap
        state = merged(comm, trainer)
    assert state.values["choices"] == {"exchange": "slices", "overlap": overlap}
    for n_before in (0, 20):  # epochs: while it is being measured, and after
        with make("pieces", "on" if overlap == "off" else "off") as trainer:
            if n_before:
                trainer.fit(data, epochs=n_before)
                assert trainer.exchange["overlap"] != overlap
            assert trainer.exchange["exchange"] == "pieces"
            assert trainer.choosing == (n_before == 0)
            trainer.load_state(state)
            assert not trainer.choosing
            trainer.fit(data, epochs=1)
            found = trainer.exchange
            assert (found["exchange"], found["overlap"]) == ("slices", overlap)
            assert "overlap_seconds" not in found
            again = merged(comm, trainer).values["choices"]
            assert again == state.values["choices"]
