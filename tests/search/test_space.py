"""The values of a search: what is understood, and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.config.config import parse
from pympi_train.errors import ConfigError
from pympi_train.search.draws import grid_of, random_trial, random_trials
from pympi_train.search.space import parse_parameter, parse_space

LEAST = '[data]\ntrain = "x.npz"\n[model]\nkind = "mlp"\n'
RATE = "optimizer.learning_rate="


@pytest.mark.parametrize(
    "text, values",
    [
        ("model.l2=0, 1e-4", ("0", "1e-4")),
        ("model.l2=0", ("0",)),
        (RATE + "log:1e-4..1e-1:4", ("0.0001", "0.001", "0.01", "0.1")),
        (RATE + "linear:0.5..1.5:3", ("0.5", "1.0", "1.5")),
        ("train.batch_size=log:32..256:4", ("32", "64", "128", "256")),
        ("train.epochs=linear:1..3:9", ("1", "2", "3")),
        ("train.seed=3..5", ("3", "4", "5")),
        ("model.kind=linear,mlp", ("linear", "mlp")),
        ("model.hidden=[64, 32], [128]", ("[64, 32]", "[128]")),
        ('data.rows="a, b","c"', ('"a, b"', '"c"')),
    ],
)
def test_values(text, values):
    assert parse_parameter(text).values == values


@pytest.mark.parametrize(
    "text, said",
    [
        ("optimizer.lr=1", "unknown key 'lr'; did you mean 'learning_rate'"),
        ("optimiser.learning_rate=1", "unknown section 'optimiser'"),
        ("learning_rate", "expected section.key=values"),
        ("model.l2=", "expected values"),
        ("model.l2=0,,1", "expected values"),
        ("model.l2=0,1,0", "the value 0 is there twice"),
        (RATE + "log:0..1:3", "ends above 0"),
        (RATE + "log:1..1e-3:3", "the first below the second"),
        (RATE + "linear:1..1:3", "the first below the second"),
        (RATE + "log:1e-3..1:1", "a count of 2 or more"),
        (RATE + "log:1e-3..1:99999", "at most 10,000 values"),
        (RATE + "log:1e-3..1:x", "expected values"),
        (RATE + "log:1e-3", "expected values"),
        (RATE + "linear:0..inf:3", "finite ends"),
        ("train.epochs=linear:1.2..1.8", "whole numbers as ends, as train.epochs"),
        ("train.seed=5..3", "the first end is below"),
        ("train.seed=0..20000", "at most 10,000 values"),
        ("output.directory=a,b", "the same in all trials"),
        ("data.fold=0,1", "the same in all trials"),
        ("search.folds=3,5", "the same in all trials"),
    ],
)
def test_refusals(text, said):
    with pytest.raises(ConfigError, match="--param") as info:
        parse_parameter(text)
    assert said in str(info.value)


def test_a_space_has_each_key_once_and_some():
    assert [p.key for p in parse_space("model.l2=0,1")] == ["model.l2"]
    with pytest.raises(ConfigError, match="model.l2 is there twice"):
        parse_space(["model.l2=0,1", "model.l2=2"])
    with pytest.raises(ConfigError, match="nothing to search"):
        parse_space([])


ENDS = st.floats(1e-12, 1e12)


@given(ENDS, ENDS, st.integers(2, 50), st.sampled_from(["log", "linear"]))
def test_a_range_is_even_ascending_and_has_its_ends(low, high, n, scale):
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    if not low < high * (1 - 1e-6):
        low, high = 1.0, 2.0
    values = parse_parameter(f"{RATE}{scale}:{low!r}..{high!r}:{n}").values
    numbers = [parse(LEAST, trial=[RATE + v]).optimizer.learning_rate for v in values]
    assert (numbers[0], numbers[-1]) == pytest.approx((low, high), rel=1e-9)
    assert sorted(numbers) == numbers
    if scale == "log" and len(numbers) == n:
        step = (math.log(high) - math.log(low)) / (n - 1)
        for i, number in enumerate(numbers):
            assert math.log(number) == pytest.approx(math.log(low) + i * step, abs=1e-7)


@given(st.text(max_size=30))
def test_any_text_is_a_parameter_or_a_refusal(text):
    for whole in (text, "model.l2=" + text, RATE + "log:" + text):
        try:
            assert parse_parameter(whole).key
        except ConfigError as error:
            assert str(error).startswith("--param ")


@given(st.lists(st.sampled_from(["0", "[1,2]", '"a,b"', "x", "{a=1,b=2}"]), min_size=1))
def test_lists_are_split_between_values_only(values):
    values = list(dict.fromkeys(values))
    assert parse_parameter("data.target=" + ",".join(values)).values == tuple(values)


def test_the_grid_is_the_product():
    space = parse_space(["model.l2=0,1", "train.seed=1..3"])
    expected = [(f"model.l2={a}", f"train.seed={b}") for a in "01" for b in "123"]
    assert grid_of(space) == expected
    with pytest.raises(ConfigError, match="all combinations need a count"):
        grid_of(parse_space([RATE + "log:1e-3..1"]))
    keys = "model.l2", "optimizer.weight_decay"
    with pytest.raises(ConfigError, match="1,000,000 combinations are more than"):
        grid_of(parse_space([f"{key}=linear:0..1:1000" for key in keys]))


RANDOM = [RATE + "log:1e-4..1e-1", "model.l2=0,1e-4,1e-2", "train.batch_size=log:8..64"]


def test_a_random_trial_does_not_depend_on_others():
    space = parse_space(RANDOM)
    drawn = random_trials(space, 20, seed=3)
    assert drawn == random_trials(space, 30, seed=3)[:20] and len(set(drawn)) == 20
    assert drawn[7] == random_trial(space, 3, 7)  # no two are equal here
    assert drawn[7] == drawn[7][:1] + random_trial(space, 3, 7)[1:]
    assert random_trial(space[:1], 3, 7) == drawn[7][:1]  # one parameter less
    assert drawn != random_trials(space, 20, seed=4)


def test_random_trials_are_spread_by_their_scale():
    drawn = random_trials(parse_space(RANDOM), 300, seed=0)
    rates, penalties, sizes = zip(*([t.split("=")[1] for t in of] for of in drawn))
    logs = sorted(math.log10(float(rate)) for rate in rates)
    for i, value in enumerate(logs):  # Kolmogorov and Smirnov at 1e-4
        assert abs((value + 4) / 3 - i / 300) < 0.13
    assert {penalties.count(v) // 70 for v in ("0", "1e-4", "1e-2")} == {1}
    assert {int(size) for size in sizes} <= set(range(8, 65))


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_at_the_ends_come_as_often_as_others(scale):
    (sizes,) = parse_space([f"train.batch_size={scale}:1..4"])
    drawn = [int(sizes.at(i / 3000)) for i in range(3000)]
    places = [0.5, 1.5, 2.5, 3.5, 4.5]
    if scale == "log":
        places = list(map(math.log, places))
    whole = places[-1] - places[0]
    for value, low, high in zip((1, 2, 3, 4), places, places[1:]):
        expected = 3000 * (high - low) / whole
        assert drawn.count(value) == pytest.approx(expected, abs=2)
    assert sizes.at(0.0) == "1" and sizes.at(1 - 2**-53) == "4"


def test_too_few_combinations_for_random_trials():
    with pytest.raises(ConfigError, match="only 2 combinations"):
        random_trials(parse_space(["model.l2=0,1"]), 3, seed=0)
