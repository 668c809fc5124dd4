"""Categories of text columns, agreed by all ranks."""

import operator

import numpy as np

from pympi_train.data.formats.label_column import as_integer
from pympi_train.data.formats.spelling import category_of


def in_order(categories):
    """Return categories sorted, integers by value and then text: tuple of str."""

    def rank(category):
        number = as_integer(category)
        return (True, 0, category) if number is None else (False, number, "")

    return tuple(sorted(categories, key=rank))


def agree_categories(column, comm):
    """Return the codes of a TextColumn, and the categories of all ranks. Collective.

    Returns
    -------
    codes : ndarray, shape (k,), float64
        Index of each row's category; NaN for a missing value.
    categories : tuple of str
    """
    own = [category_of(text) for text in column.distinct]
    values = in_order(comm.allreduce(set(own), op=operator.or_))  # a tree of messages
    place = {value: i for i, value in enumerate(values)}
    codes = np.array([*(place[value] for value in own), np.nan])
    return codes[column.codes], values
