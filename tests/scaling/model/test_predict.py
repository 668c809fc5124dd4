"""Properties of the counts, of the slowest rank, and of predictions."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi_train.errors import ConfigError
from pympi_train.scaling.model import counts, exchange_costs, fit
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.draws import expected_maximum, quantiles_of
from pympi_train.scaling.model.links import parse_network, with_network
from pympi_train.scaling.model.predict import (
    is_possible,
    predict_step,
    predictions,
    rank_limit,
)
from pympi_train.scaling.model.ways import (
    Gradient,
    Way,
    all_ways,
    compressed_parts,
    exchange_s,
    sum_s,
)
from tests.scaling.model import made_study as made

WAYS = all_ways()
ranks = st.integers(1, 4096)
per_node = st.integers(1, 128)
sizes = st.integers(4, 2**30)


@cache
def model():
    return fit.fit_model(made.study(jitter=0.1))


@settings(max_examples=40, deadline=None)
@given(ranks.filter(lambda n: n > 1), per_node, sizes)
def test_bytes_of_sums_on_ranks_with_a_node_each_and_together(n, node, n_bytes):
    alone, together = Place(n, 1), Place(n, n)
    sent = 2 * n_bytes * (n - 1) / n
    assert counts.direct(alone, n_bytes).outer_bytes == pytest.approx(sent)
    assert counts.direct(together, n_bytes).inner_bytes == pytest.approx(sent)
    if n & (n - 1) == 0 and n_bytes >= max(9, 4 * n):
        assert counts.allreduce(alone, n_bytes).outer_bytes == pytest.approx(sent)
        assert counts.allreduce(alone, n_bytes).outer == 2 * math.log2(n)
    for count in exchange_costs.COUNTS.values():
        assert min(count(Place(n, node), n_bytes)) >= 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WAYS), ranks, per_node, sizes, st.integers(2, 8))
def test_exchanges_of_more_bytes_or_on_a_slower_network_take_longer(
    way, n, node, n_bytes, times
):
    if way.strategy == "server" and n <= way.servers:
        return
    place, costs = Place(n, node), made.COSTS
    found = exchange_s(costs, way, place, Gradient(n_bytes))
    assert found >= 0 and (found > 0 or n == 1)
    if n_bytes >= 2**20:  # below, other algorithms take over, with a step down
        longer = Gradient(times * n_bytes)
        assert exchange_s(costs, way, place, longer) >= found * (1 - 1e-9)
    outer = 2 * costs.mpi.outer_s, times * 1e-8
    slow = exchange_costs.Costs(
        with_network(costs.mpi, outer), with_network(costs.slices, outer), {}, True
    )
    slow.codecs.update(costs.codecs)
    assert exchange_s(slow, way, place, Gradient(n_bytes)) >= found * (1 - 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=40), ranks, ranks)
def test_the_slowest_of_more_ranks_is_slower(draws, a, b):
    factors = quantiles_of(draws)
    low, high = sorted((a, b))
    assert 1 - 1e-9 <= expected_maximum(factors, low)
    assert expected_maximum(factors, low) <= expected_maximum(factors, high) + 1e-9


def test_ranks_of_a_node_share_its_port():
    # Each of 4 ranks of a node sends an 8th of both phases to each of 4 others.
    assert counts.direct(Place(8, 4), 800).outer_bytes == 4 * 2 * 100 * 4


def test_allreduce_of_several_ranks_a_node_sums_in_the_node_first():
    found = counts.allreduce(Place(8, 4), 2**20)
    between = counts.allreduce(Place(2, 1), 2**20)
    assert (found.outer, found.outer_bytes) == (between.outer, between.outer_bytes)
    # Reduce: halving and gathering in 2 rounds each; broadcast: 2 whole blocks.
    assert found.inner == 2 + 2 + 2
    assert found.inner_bytes == pytest.approx(2**20 * (2 * 3 / 4 + 2))
    assert found.shared_bytes == 3 * found.inner_bytes


@pytest.mark.parametrize("n, times", [(3, 3.5), (5, 4.0), (6, 3.75), (8, 1.75)])
def test_ranks_beyond_a_power_of_two_send_whole_blocks(n, times):
    assert counts.allreduce(Place(n, 1), 2**20).outer_bytes == times * 2**20


@pytest.mark.parametrize(
    "n, n_bytes, rounds", [(4, 2**16, 2), (4, 2**17, 3), (3, 8, 2), (5, 2**15, 4)]
)
def test_long_allgathers_are_rings(n, n_bytes, rounds):
    found = counts.allgather(Place(n, 1), n_bytes)
    assert (found.outer, found.outer_bytes) == (rounds, n_bytes * (n - 1))


def test_rings_leave_a_node_once():
    assert counts.allgather(Place(8, 4), 2**20).outer_bytes == 7 * 2**20


def test_small_sums_of_a_node_take_its_shared_memory():
    place, costs = Place(4, 4), made.COSTS
    most = 2**19 // 4 - 128
    assert counts.fits_flags(place, most) and not counts.fits_flags(place, most + 4)
    assert not counts.fits_flags(Place(4, 2), 64)
    assert not counts.fits_flags(Place(1, 1), 64)
    n_bytes, own = 4000, made.FLAGS
    wanted = 3 * own.inner_s + own.call_s
    read = 4 * (n_bytes + 64)  # with the control message
    wanted += read * (own.inner_s_per_byte + 3 * own.shared_s_per_byte)
    found = exchange_s(costs, Way("allreduce"), place, Gradient(n_bytes))
    assert found == pytest.approx(wanted)
    beyond = exchange_s(costs, Way("allreduce"), place, Gradient(most + 4))
    assert beyond > counts.allreduce(place, most + 4).seconds(costs.mpi)


def test_a_wire_hides_the_shorter_of_coding_and_sending_but_for_a_piece():
    place = Place(4, 1)
    for n_bytes, pieces in ((2**20, 1), (2**24, 8)):
        sent_s, codec_s = compressed_parts(made.COSTS, "int8", place, n_bytes)
        longer, shorter = max(sent_s, codec_s), min(sent_s, codec_s)
        found = sum_s(made.COSTS, "int8", place, n_bytes)
        assert found == pytest.approx(longer + shorter / pieces)


def test_factors_of_powersgd_are_those_that_were_sent():
    place, way = Place(4, 1), Way("allreduce", "powersgd")
    study = made.study()
    assert fit.fit_steps(study).gradient.factor_bytes is None
    launch = made.measurement(Place(3, 1))
    launch |= {"exchange": {"strategy": "allreduce", "exchange": "powersgd"}}
    launch["sent_bytes"] = 2 * 2 / 3 * 38_000
    study["measurements"].append(launch)
    factor_bytes = fit.fit_steps(study).gradient.factor_bytes
    assert factor_bytes == pytest.approx(38_000)
    gradient = Gradient(made.N_BYTES, factor_bytes=factor_bytes)
    more_s = exchange_s(made.COSTS, way, place, gradient)
    more_s -= exchange_s(made.COSTS, way, place, Gradient(made.N_BYTES))
    square = 8 * (made.N_BYTES / 4) ** 0.5 * 4
    wanted = 2 * 3 / 4 * (38_000 - square) * made.MPI.outer_s_per_byte
    assert more_s == pytest.approx(wanted)


def test_slowest_of_exponential_draws_is_the_harmonic_sum():
    draws = quantiles_of(np.random.default_rng(0).exponential(size=200_000))
    for n in (2, 16, 256, 4096):
        wanted = sum(1 / k for k in range(1, n + 1))  # of P exponential draws
        assert expected_maximum(draws, n) == pytest.approx(wanted, rel=0.08)


def test_slowest_of_few_ranks_is_that_of_resampling():
    rng = np.random.default_rng(1)
    draws = rng.gamma(4.0, size=400)
    slowest = rng.choice(draws, size=(20_000, 8)).max(axis=1)
    resampled = slowest.mean() / draws.mean()
    found = expected_maximum(quantiles_of(draws), 8)
    assert found == pytest.approx(resampled, rel=0.03)


def test_predictions_of_all_ways():
    found = predictions(model())
    assert {one.way for one in found} == set(WAYS)
    assert {one.ranks for one in found} == {8 * 2**k for k in range(1, 13)}
    for one in found:
        assert one.step_s == pytest.approx(sum(one.parts_s.values()))
        assert min(one.parts_s.values()) >= 0 and 0 < one.efficiency <= 1 + 1e-9


def test_one_rank_is_efficient_and_what_hides_or_compresses_saves():
    for mode in ("strong", "weak"):
        assert predict_step(model(), Way("allreduce"), 1, mode=mode).efficiency == 1
    local = [Way("local", local_steps=k) for k in (1, 4, 16)]
    steps_s = [predict_step(model(), way, 64, per_node=1).step_s for way in local]
    assert steps_s == sorted(steps_s, reverse=True)


@pytest.mark.parametrize("n_steps, H, between", [(9, 8, 4.5), (3, 8, 3), (16, 8, 8)])
def test_local_steps_exchange_at_the_end_of_an_epoch_too(n_steps, H, between):
    """Nor do the other steps have a control message."""
    short = replace(model(), rows=n_steps * model().batch_size - 1)
    local = Way("local", local_steps=H)
    for mode in ("strong", "weak"):
        how = {"per_node": 1, "mode": mode}
        found = predict_step(short, local, 64, **how).parts_s
        one = predict_step(short, Way("local"), 64, **how).parts_s
        assert found["transfer"] == pytest.approx(one["transfer"] / between)
        assert found["wait"] == pytest.approx(one["wait"] / math.sqrt(between))


LIMITS = [  # strategy, mode, ranks of a node, rows of a batch, and the limit by trying
    ("allreduce", "strong", 1, 123_000, 37),
    ("allreduce", "strong", 1, 300_000, 89),  # 92 are efficient enough, 93 are not
    ("allreduce", "strong", 4, 40_000, 17),  # 32 are efficient enough
    ("allreduce", "weak", 4, 3000, 17),
    ("sharded", "strong", 4, 300_000, 45),
    ("sharded", "weak", 1, 3000, 368),
    ("exact", "weak", 1, 10_000, None),
    ("server", "strong", 1, 123_000, 5),
]


@pytest.mark.parametrize("strategy, mode, per_node, rows, wanted", LIMITS)
def test_limit_is_where_efficiency_falls_below(
    monkeypatch, strategy, mode, per_node, rows, wanted
):
    monkeypatch.setattr(made, "SHARED_ROW_S", 0.0)
    planted = replace(fit.fit_model(made.study()), batch_size=rows)
    way, how = Way(strategy, servers=4), {"mode": mode, "per_node": per_node}
    below = (
        n
        for n in range(2, 500)
        if is_possible(way, n)
        and predict_step(planted, way, n, **how).efficiency < 0.8
    )
    limit = rank_limit(planted, way, **how)
    assert (limit, next(below, None)) == (wanted, wanted)


def test_limit_that_is_asked_for():
    limits = [rank_limit(model(), Way("local"), least=x) for x in (0.1, 0.5, 0.9)]
    assert limits == sorted(limits, reverse=True) and limits[0] > limits[-1]


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_networks_are_parsed(gbit, us):
    latency_s, s_per_byte = parse_network(f"us={us!r}, gbit={gbit!r}")
    assert latency_s == pytest.approx(us / 1e6)
    assert s_per_byte == pytest.approx(8 / (gbit * 1e9))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="gbitus=,.0123456789e- n", max_size=20))
def test_networks_are_parsed_or_refused(text):
    try:
        latency_s, s_per_byte = parse_network(text)
    except ConfigError as error:
        assert "--network" in str(error)
    else:
        assert latency_s > 0 and s_per_byte > 0


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "expected gbit"),
        ("gbit=25", "us is missing"),
        ("gbit=25,us=2,us=3", "there twice"),
        ("gbit=0,us=2", "must be a number"),
        ("gbit=nan,us=2", "must be a number"),
        ("gbit=1_0,us=2", "must be a number"),
        ("mbit=25,us=2", "got 'mbit=25'"),
    ],
)
def test_refused_networks(text, why):
    with pytest.raises(ConfigError, match=why):
        parse_network(text)
