"""Fits recover planted parameters."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import ROW_S, ROWS, make_study

from pympi_train.errors import ConfigError
from pympi_train.scaling.model import exchange_costs, fit, ways
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.least_squares import nonnegative, robust
from pympi_train.scaling.model.links import Links, with_network
from pympi_train.scaling.model.predict import predict_step
from pympi_train.scaling.model.usable import usable_measurements
from pympi_train.scaling.model.validate import compared, exchange_prediction
from tests.scaling.model import made_study as made


def test_exact_times_give_the_planted_parameters():
    costs = exchange_costs.fit_costs(made.exchanges())
    np.testing.assert_allclose(costs.mpi.vector, made.MPI.vector, rtol=1e-4)
    np.testing.assert_allclose(costs.slices.vector, made.SLICES.vector, rtol=1e-4)
    np.testing.assert_allclose(costs.flags.vector, made.FLAGS.vector, rtol=1e-3)
    for kind, planted in made.CODECS.items():
        assert costs.codecs[kind] == pytest.approx(planted, rel=0.02)


def times(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


links = st.builds(
    Links,
    inner_s=times(1e-7, 1e-4),
    inner_s_per_byte=times(1e-11, 1e-8),
    shared_s_per_byte=times(1e-12, 1e-9),
    outer_s=times(1e-6, 1e-3),
    outer_s_per_byte=times(1e-10, 1e-6),
    crossed_s_per_byte=times(1e-11, 1e-6),
    call_s=times(1e-6, 1e-3),
)


@settings(max_examples=15, deadline=None)
@given(mpi=links, slices=links, flags=links)
def test_any_planted_links_are_found_from_what_they_take(mpi, slices, flags):
    mpi = replace(mpi, crossed_s_per_byte=0.0)  # no message of MPI's Allreduce crosses
    planted = exchange_costs.Costs(mpi, slices, made.CODECS, True, flags)
    cases = [
        one
        for one in made.exchanges(costs=planted)
        if not one["strategy"].startswith("compressed")
    ]
    found = exchange_costs.fit_costs(cases)
    for one in cases:
        predicted_s = exchange_prediction(found, one)
        if predicted_s is not None:
            assert predicted_s == pytest.approx(one["median_s"], rel=0.01)


def test_crossing_messages_take_as_many_times_another_rate():
    found = exchange_costs.costs_on((1e-5, 2e-10), made.COSTS).slices
    assert (found.outer_s, found.outer_s_per_byte) == (1e-5, 2e-10)
    assert found.crossed_s_per_byte == pytest.approx(2e-10 * 3e-9 / 8.5e-9)
    one_node = exchange_costs.fit_costs(made.exchanges([Place(2, 2)]))
    found = exchange_costs.costs_on((1e-5, 2e-10), one_node)
    assert found.slices.crossed_s_per_byte == 0


def test_crowded_cores_slow_work_down_and_no_message():
    model = fit.fit_model(made.study())
    slow, way, place = model.slowed(2.0), ways.Way("allreduce"), Place(8, 1)
    steps = [predict_step(one, way, 8, per_node=1) for one in (model, slow)]
    for name in ("input", "compute", "update"):
        assert steps[1].parts_s[name] == pytest.approx(2 * steps[0].parts_s[name])
    assert steps[1].parts_s["transfer"] == pytest.approx(steps[0].parts_s["transfer"])
    sent_s, codec_s = ways.compressed_parts(model.costs, "topk", place, 2**20)
    wanted = sent_s, pytest.approx(2 * codec_s)
    assert ways.compressed_parts(slow.costs, "topk", place, 2**20) == wanted


@pytest.mark.parametrize("network", [(1e-4, 8e-8), (1e-6, 1e-10)])
@pytest.mark.parametrize("s_per_byte", [5e-10, 1e-8, 2e-7])
def test_codecs_are_recovered_whether_they_or_the_network_are_slower(
    network, s_per_byte
):
    links = with_network(made.SLICES, network)
    kind, planted = "compressed int8", exchange_costs.Costs(
        links, links, {"int8": (1e-4, s_per_byte)}, True
    )
    cases = [
        made.exchange(place, n, kind, ways.sum_s(planted, "int8", place, n))
        for place in (Place(2, 1), Place(3, 1), Place(4, 1))
        for n in (2**16, 2**20, 2**22, 2**24)
    ]
    found = exchange_costs._fit_codec(planted, "int8", cases)
    assert found == pytest.approx((1e-4, s_per_byte), rel=0.01)


def test_noise_and_outliers_change_predictions_little():
    exchanges = made.exchanges(noise=0.03)
    for one in exchanges[::17]:
        one["median_s"] *= 4
    costs = exchange_costs.fit_costs(exchanges)
    truth = [one for one in made.exchanges() if one["strategy"] in ("plain", "slices")]
    errors = [exchange_prediction(costs, one) / one["median_s"] - 1 for one in truth]
    assert np.median(np.abs(errors)) < 0.03
    assert np.abs(errors).max() < 0.25


def test_work_of_a_rank_is_recovered():
    model = fit.fit_model(made.study())
    planted = made.FIXED_S, made.ROW_S, 0.0, made.SHARED_ROW_S
    found = model.compute
    got = found.fixed_s, found.row_s, found.shared_s, found.shared_row_s
    np.testing.assert_allclose(got, planted, rtol=1e-3, atol=1e-9)
    assert model.update.fixed_s == pytest.approx(made.UPDATE_S)


def test_the_update_is_recovered_whichever_strategies_divide_it():
    study = made.study()
    for place in made.PLACES:
        for strategy, n in (("sharded", place.ranks), ("hierarchical", place.shared)):
            one = made.measurement(place, strategy=strategy)
            one["parts_s"]["update"] = [made.UPDATE_S / n] * place.ranks
            study["measurements"].append(one)
        worker = made.measurement(place, strategy="server")
        worker["parts_s"]["update"] = [1e-6] * place.ranks
        study["measurements"].append(worker)
    model = fit.fit_steps(study)
    assert model.update.fixed_s == pytest.approx(made.UPDATE_S, rel=1e-3)
    alone = predict_step(model, ways.Way("allreduce"), 4).parts_s["update"]
    shared = predict_step(model, ways.Way("sharded"), 4).parts_s["update"]
    assert shared == pytest.approx(alone / 4)
    assert model.ranks == 8 and model.per_node == 4


def test_the_study_tells_how_many_layers_there_are():
    study = made.study()
    assert fit.fit_model(study, n_layers=2).gradient.n_layers == 2
    for one in study["measurements"]:
        one["layers"] = 5
    deep = fit.fit_model(study, n_layers=2)
    assert deep.gradient.n_layers == 5
    sharded = ways.Way("sharded")
    shallow = replace(deep, gradient=deep.gradient._replace(n_layers=2))
    steps_s = [predict_step(m, sharded, 64).step_s for m in (shallow, deep)]
    assert steps_s[0] < steps_s[1]


def test_error_is_that_of_ranks_that_were_left_out():
    model = fit.fit_model(made.study())
    assert model.error.is_unseen
    assert model.error.worst < 0.02
    study = made.study()
    for one in study["measurements"]:
        if one["ranks"] == 8:
            one["step_s"] = [2 * step_s for step_s in one["step_s"]]
    worse = fit.fit_model(study).error
    assert worse.worst == pytest.approx(0.5, abs=0.02)
    names = [name for name, _ in compared(model, study, 8)]
    assert "step, strong, allreduce" in names and any("int8" in n for n in names)


def test_hosts_with_a_rank_each_and_one_node_are_enough():
    hosts = exchange_costs.fit_costs(made.exchanges([Place(2, 1), Place(3, 1)]))
    assert hosts.is_outer_known
    assert hosts.mpi.inner_s == exchange_costs.ON_A_NODE.inner_s
    node = exchange_costs.fit_costs(made.exchanges([Place(2, 2)]))
    assert not node.is_outer_known
    assert node.mpi.outer_s_per_byte == node.mpi.inner_s_per_byte > 0


def test_crowded_ranks_are_left_out():
    study = made.study()
    study["measurements"][-1]["oversubscribed"] = True
    ranks = study["measurements"][-1]["ranks"]
    assert all(one["ranks"] != ranks for one in fit.usable_exchanges(study))
    assert all(one["ranks"] != ranks for one in usable_measurements(study))


@pytest.mark.parametrize("measurements", [[], [{"error": "no memory", "ranks": 2}]])
def test_a_study_without_a_step_is_refused(measurements):
    with pytest.raises(ConfigError, match="no measurement of a step"):
        fit.fit_model({"measurements": measurements, "exchanges": []})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_nonnegative_is_as_good_as_scipy(seed, n):
    from scipy.optimize import nnls

    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((8, n)), rng.standard_normal(8)
    x = nonnegative(matrix, target)
    assert (x >= 0).all()
    best, norm = nnls(matrix, target)
    assert np.linalg.norm(matrix @ x - target) <= norm + 1e-6


def test_robust_fit_of_exact_values_with_an_outlier():
    matrix = np.column_stack([np.ones(20), np.arange(1, 21)])
    seconds = matrix @ [3.0, 0.5]
    seconds[4] *= 10
    np.testing.assert_allclose(robust(matrix, seconds), [3.0, 0.5], rtol=0.02)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 4)])
def test_a_weak_study_predicts_the_batch_of_each_rank(ranks):
    """Also if it has no step of one rank, whose batch is that of the configuration."""
    model = fit.fit_model(make_study(ranks=ranks, modes=("weak",)))
    assert model.batch_size == ROWS
    found = predict_step(model, ways.Way("allreduce"), ranks[-1], mode="weak")
    assert found.parts_s["compute"] == pytest.approx(ROWS * ROW_S, rel=0.05)


def test_local_steps_are_compared_by_their_mean():
    """Three of four exchange nothing."""
    one = made.measurement(Place(4, 1), strategy="local")
    one["exchange"]["local_steps"] = 4
    sent_s = one["parts_s"]["transfer"][0]
    one["step_s"] = [s - sent_s * (i % 4 > 0) for i, s in enumerate(one["step_s"])]
    seen, study = made.study(), made.study()
    study["measurements"].append(one)
    found = dict(compared(fit.fit_steps(seen), study, 4))
    assert abs(found["step, strong, local, 4 steps"]) < 0.02
