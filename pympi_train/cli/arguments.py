"""Checks of arguments that several commands share."""

import argparse

LIMIT = 2**63  # of the integers of NumPy and of files


def whole_number(least=1):
    """Return a function that reads a whole number of at least ``least``.

    For ``type`` of ``add_argument``, which prints what the function complains of.
    """

    def number(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or value >= LIMIT:
            below = " and below 2^63" if value >= LIMIT else ""
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least}{below}, got {text!r}"
            )
        return value

    return number


def whole_numbers(least=1):
    """Return a function that reads whole numbers with commas in between, each once."""
    number = whole_number(least)

    def numbers(text):
        return list(dict.fromkeys(map(number, text.split(","))))

    return numbers
