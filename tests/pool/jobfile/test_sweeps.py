"""Sweeps: which jobs they stand for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.errors import ConfigError
from pympi_train.pool.jobfile.sweeps import MAX_JOBS, combinations, dotted, member_names
from pympi_train.pool.jobfile.tables import NAME

lists = st.lists(st.integers(), min_size=1, max_size=4, unique=True)
sweeps = st.dictionaries(st.text("abc", min_size=1, max_size=3), lists, min_size=1)


@given(sweeps)
def test_grid_has_each_combination_once(sweep):
    sweep = dict(list(sweep.items())[:5])
    found = combinations(sweep, "grid", "")
    expected = [{}]
    for path, values in sweep.items():
        expected = [{**one, path: value} for one in expected for value in values]
    assert found == expected


@given(sweeps)
def test_zip_takes_values_together(sweep):
    n = min(map(len, sweep.values()))
    cut = {path: values[:n] for path, values in sweep.items()}
    found = combinations(cut, "zip", "")
    assert found == [{path: v[i] for path, v in cut.items()} for i in range(n)]
    if any(len(values) != n for values in sweep.values()):
        with pytest.raises(ConfigError, match="needs lists of one length"):
            combinations(sweep, "zip", "")


@given(st.from_regex(NAME, fullmatch=True), st.integers(1, 300))
def test_names_of_a_sweep_sort_and_differ(name, n):
    names = member_names(name, n)
    assert names == sorted(set(names)) and len(names) == n
    assert all(one.startswith(f"{name}-") for one in names)
    assert all("/" not in one and one not in (".", "..") for one in names)


@pytest.mark.parametrize(
    "sweep, how, told",
    [
        ({}, "grid", "it is empty"),
        ({"a.b": []}, "grid", "a.b: the list is empty"),
        ({"a.b": 3}, "grid", "a.b: expected a list of values"),
        ({"a.b": {"c": [1]}}, "zip", "a.b: expected a list of values"),
        ({"a.b": [1, 2], "a.c": [1]}, "zip", "got a.b 2, a.c 1"),
        ({"a.b": [0] * (MAX_JOBS + 1)}, "zip", "10,001 jobs, at most 10,000"),
        ({"a.b": [1e-3, 2, 0.001]}, "grid", "{'a.b': 0.001} is there twice"),
        ({"a.b": [1, 1], "a.c": [2, 2]}, "zip", "is there twice"),
        ({f"a.{i}": [0] * 100 for i in range(50)}, "grid", "at most 10,000"),
    ],
)
def test_what_gives_no_jobs(sweep, how, told):
    with pytest.raises(ConfigError, match=f"^here.*{told}"):
        combinations(sweep, how, "here")


def test_keys_in_both_forms():
    mixed = {"train": {"epochs": 3}, "model.l2": 0, "optimizer": {"name": "sgd"}}
    found = dotted(mixed, "")
    assert found == {"train.epochs": 3, "model.l2": 0, "optimizer.name": "sgd"}
    # The value of a key may be a table.
    weights = {"model": {"class_weights": {"a.b": 2}}}
    assert dotted(weights, "") == {"model.class_weights": {"a.b": 2}}
    for wrong, told in (
        ({"epochs": 3}, "epochs: expected section.key"),
        ({"train": {"epochs": 3}, "train.epochs": 4}, "train.epochs: occurs twice"),
        ({" train.epochs": 3, "train.epochs ": 4}, "train.epochs: occurs twice"),
    ):
        with pytest.raises(ConfigError, match=told):
            dotted(wrong, "")


def test_grid_is_the_product_in_its_order():
    found = combinations({"a.b": [1, 2], "a.c": [3, 4, 5]}, "grid", "")
    pairs = [tuple(values.values()) for values in found]
    assert pairs == list(itertools.product([1, 2], [3, 4, 5]))
