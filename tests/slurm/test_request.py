"""Values that SLURM takes, and those that are refused before it sees them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.errors import ConfigError
from pympi_train.slurm.request import JobRequest, array_indices, duration_s

GOOD = {"nodes": 2, "ntasks_per_node": 4, "time": "01:00:00"}


@pytest.mark.parametrize(
    "text, seconds",
    [("00:00:01", 1), ("01:02:03", 3723), ("99:00:00", 356_400), ("1-00:00:01", 86401)],
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "00:00:00", "60", "1:00", "1:60:00", "1:00:00\n"])
def test_no_durations(text):
    with pytest.raises(ConfigError, match="--time .*: expected hours, minutes"):
        duration_s(text)


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("3", {3}),
        ("0-3", {0, 1, 2, 3}),
        ("1,3,7%2", {1, 3, 7}),
        ("0-30:10,31", {0, 10, 20, 30, 31}),
    ],
)
def test_arrays(text, numbers):
    assert array_indices(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "3-1", "0-", ",", "1,", "0-9%0", "a", "1 2", "0-9999999", "1\n", "٣"]
)
def test_no_arrays(text):
    with pytest.raises(ConfigError, match="--array .*: expected task numbers"):
        array_indices(text)


@given(st.text(alphabet="0123456789-,:%", max_size=20))
def test_any_array_is_taken_or_refused(text):
    try:
        assert array_indices(text)
    except ConfigError:
        pass


@pytest.mark.parametrize(
    "values, words",
    [
        ({"nodes": None}, "--nodes is required"),
        ({"nodes": 0}, "--nodes 0: expected a number of at least 1"),
        ({"gpus_per_node": True}, "--gpus-per-node True: expected a number"),
        ({"signal_before": 3600}, "--signal-before 3600: expected fewer seconds"),
        ({"partition": "a b"}, "--partition 'a b': expected a name"),
        ({"partition": "--wrap=x"}, "--partition '--wrap=x': expected"),
        ({"account": "a\n#SBATCH --wrap=x"}, "--account .*: expected a name"),
        ({"modules": ("gcc", "$(touch x)")}, "--module .*: expected a name such"),
        ({"container": "/no/such.sif"}, "--container '/no/such.sif': no such image"),
        ({"container": "-x"}, "--container '-x': expected a file"),
    ],
)
def test_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        JobRequest(**{**GOOD, **values})


def test_accepted():
    more = {"partition": "gpu,gpu-long", "account": "a_1@x", "modules": ("gcc/13.2",)}
    assert JobRequest(**GOOD, **more, container="docker://site/image:1").nodes == 2
