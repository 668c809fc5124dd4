"""Checks of arguments that several commands share."""

import argparse

import pytest

from pympi_train.cli.arguments import whole_number, whole_numbers


@pytest.mark.parametrize(
    "text, least, value",
    [("1", 1, 1), ("2_000", 1, 2000), ("0", 0, 0), (str(2**63 - 1), 1, 2**63 - 1)],
)
def test_whole_numbers(text, least, value):
    assert whole_number(least)(text) == value


@pytest.mark.parametrize(
    "text, least, expected",
    [
        ("0", 1, "from 1, got '0'"),
        ("-1", 0, "from 0, got '-1'"),
        ("1e3", 1, "from 1, got '1e3'"),
        ("", 1, "from 1, got ''"),
        (str(2**63), 1, f"from 1 and below 2^63, got '{2**63}'"),
        ("9" * 5000, 0, "from 0, got '999"),  # more digits than Python reads
    ],
)
def test_no_whole_numbers(text, least, expected):
    with pytest.raises(argparse.ArgumentTypeError) as info:
        whole_number(least)(text)
    assert f"expected a whole number {expected}" in str(info.value)


def test_several_whole_numbers():
    assert whole_numbers()("1,2,4,2") == [1, 2, 4]
    with pytest.raises(argparse.ArgumentTypeError) as info:
        whole_numbers()("1-4")
    told = "expected a whole number from 1, got '1-4'; write several with commas"
    assert told in str(info.value)
