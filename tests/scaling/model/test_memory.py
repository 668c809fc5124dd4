"""Memory of a rank, and the fastest strategy that fits."""

import re

import pytest

from pympi_train.config.config import parse
from pympi_train.errors import ConfigError
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.fit import fit_model
from pympi_train.scaling.model.memory import (
    BASE_BYTES,
    MemoryNeeds,
    largest_layer,
    needs_of,
    rank_bytes,
)
from pympi_train.scaling.model.recommend import (
    fastest_option,
    options_for,
    reason,
)
from pympi_train.scaling.model.ways import SAME, Way, all_ways
from tests.scaling.model import made_study

# As in docs/results/memory.md: six layers of 2048 with Adam.
LAYER = 2049 * 2048 * 4
NEEDS = MemoryNeeds(6 * LAYER, 2, LAYER, 0, 2**20, 0)


@pytest.mark.parametrize(
    "way, ranks, mb",
    [
        (Way("allreduce"), 4, 403),
        (Way("sharded", stage=1), 2, 311),
        (Way("sharded", stage=1), 4, 256),
        (Way("sharded", stage=2), 4, 193),
        (Way("sharded", stage=3), 4, 134),
    ],
)
def test_blocks_are_those_of_the_measured_formulas(way, ranks, mb):
    held = rank_bytes(NEEDS, way, Place(ranks, ranks), 1) - BASE_BYTES
    # At stages 2 and 3 a layer's share more.
    assert held / 1e6 == pytest.approx(mb, abs=6)


@pytest.mark.parametrize("way", all_ways(), ids=str)
def test_more_ranks_never_need_more(way):
    held = [rank_bytes(NEEDS, way, Place(n, n), 64) for n in (2, 4, 8, 64)]
    assert held == sorted(held, reverse=True)


def test_largest_layer_is_an_upper_bound():
    outer = 11 * 5 + 8 * 2
    assert largest_layer(4 * (outer + 6 * 7), [5, 7], 4) == 4 * outer
    assert largest_layer(400, [], 4) == 400


def test_activations_of_float64_take_twice_the_bytes(tmp_path):
    text = """
    data = {train = "a.csv"}
    model = {kind = "mlp", hidden = [5, 7]}
    optimizer = {name = "sgd", learning_rate = 0.1}
    output = {directory = "out"}
    """
    for dtype, itemsize in (("float32", 4), ("float64", 8)):
        config = parse(text, folder=tmp_path, overrides=[f"model.dtype={dtype}"])
        needs = needs_of(config, itemsize * 200)
        assert needs.row_bytes == 2 * 12 * itemsize
        assert needs.largest_bytes == (200 - 6 * 7) * itemsize


def test_workers_of_a_server_share_the_whole_batch():
    model, way = fit_model(made_study.study()), Way("server", servers=2)
    needs = NEEDS._replace(row_bytes=1000)
    (one,) = options_for(model, needs, [way], 4, per_node=4, mode="strong")
    rows = model.batch_size / 2
    assert one.memory_bytes == rank_bytes(needs, way, Place(4, 4), rows)


def test_the_fastest_that_fits():
    model, ways = fit_model(made_study.study()), all_ways()
    how = {"per_node": 4, "mode": "strong"}
    free = options_for(model, NEEDS, ways, 16, **how)
    best = fastest_option(free)
    assert best.prediction.way.result == SAME
    tight = min(one.memory_bytes for one in free if one.prediction.way.result == SAME)
    options = options_for(model, NEEDS, ways, 16, memory_bytes=tight, **how)
    small = fastest_option(options)
    assert small.memory_bytes == tight and small.prediction.way.stage == 3
    assert "would be faster, but needs" in reason(small, options)
    with pytest.raises(ConfigError, match="sharded, stage 3 needs least memory"):
        fastest_option(options_for(model, NEEDS, ways, 16, memory_bytes=1, **how))


def test_the_memory_that_a_refusal_names_is_enough():
    """Also where two decimals would be less than what is needed."""
    model, ways = fit_model(made_study.study()), all_ways()
    how = {"per_node": 4, "mode": "strong"}
    for n_bytes in (1_234_567, 1_111_111, 40_000_000):
        needs = NEEDS._replace(n_bytes=n_bytes, largest_bytes=n_bytes)
        with pytest.raises(ConfigError, match="no strategy fits") as refused:
            fastest_option(options_for(model, needs, ways, 16, memory_bytes=1, **how))
        (named,) = re.findall(r"([\d.]+) GB a rank", str(refused.value))
        enough = options_for(
            model, needs, ways, 16, memory_bytes=1e9 * float(named), **how
        )
        assert fastest_option(enough).fits


def test_a_gain_that_the_model_cannot_tell_changes_nothing():
    model, needs = fit_model(made_study.study()), NEEDS
    found = options_for(model, needs, all_ways(), 16, per_node=4, mode="strong")

    def with_steps(server_s, plain_s):
        steps_s = {"server": server_s, "allreduce": plain_s}
        kept = [one for one in found if str(one.prediction.way) in steps_s]
        kept = [
            one._replace(prediction=one.prediction._replace(
                step_s=steps_s[str(one.prediction.way)]
            ))
            for one in kept
        ]
        return sorted(kept, key=lambda one: one.prediction.step_s)

    close, far = with_steps(1.0, 1.04), with_steps(1.0, 1.2)
    assert fastest_option(close).prediction.way.strategy == "allreduce"
    assert fastest_option(close, any_result=True).prediction.way.strategy == "server"
    assert "server is 4% faster by the model" in reason(fastest_option(close), close)
    assert fastest_option(far).prediction.way.strategy == "server"
    assert "Next is allreduce, 20% slower" in reason(fastest_option(far), far)
    same = with_steps(1.0, 1.0)
    assert "Next" not in reason(fastest_option(same), same)
