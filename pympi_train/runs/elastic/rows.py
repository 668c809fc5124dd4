"""Rows in memory that move from the ranks that had them to those that train next."""

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.node_memory import available_bytes
from pympi_train.comm.collectives import reduced
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.comm.ranks import key_of
from pympi_train.data.groups import row_cuts
from pympi_train.data.partition import bounds
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.sources.sparse import SparseDataset

PARTS = ("train", "validation")
IN_MEMORY = {Dataset: np.ndarray, SparseDataset: CSR}  # and the type of their features


class RowsInMemory(NamedTuple):
    """What a rank without rows has to know to take part in moving them.

    Attributes
    ----------
    empty : Loaded
        The data sets with none of their rows.
    cuts : dict of str to list of int
        Of "train" and "validation": the first row of each rank, and the number of rows.
    """

    empty: Any
    cuts: dict


def rows_in_memory(data, comm, n_ranks, n_on_node):
    """Return the `RowsInMemory` of loaded data.

    Parameters
    ----------
    data : Loaded
    comm : MPI.Comm
        The ranks that share the rows.
    n_ranks : int
        Number of ranks that will share them.
    n_on_node : int
        Ranks of this node.

    Returns
    -------
    RowsInMemory or None
        None if the rows are to be loaded again: some stay in their file, or there is no
        room for the old and the new ones at the same time.

    Notes
    -----
    Collective.
    """
    parts = {name: getattr(data, name) for name in PARTS}
    parts = {name: source for name, source in parts.items() if source is not None}
    can_move = all(map(_is_in_memory, parts.values()))
    if can_move:
        n_bytes = sum(part.n * part.row_bytes for part in parts.values())
        room_bytes = available_bytes() / n_on_node
        can_move = n_bytes / n_ranks < room_bytes / 2
    if not reduced(comm, [can_move], op="MIN")[0]:
        return None
    cuts = {
        name: [*numbers_of_ranks(comm, part.start).tolist(), part.n]
        for name, part in parts.items()
    }
    empty = {name: _without_rows(part) for name, part in parts.items()}
    return RowsInMemory(replace(data, **empty), cuts)


def _is_in_memory(source):
    return type(getattr(source, "x", None)) is IN_MEMORY.get(type(source), Any)


def _without_rows(source):
    """Return a data set with no row, but the dtypes and widths of ``source``."""
    other, none = copy.copy(source), slice(0, 0)
    x = source.x[none]
    other.x = x.compact() if isinstance(x, CSR) else x.copy()
    for name in ("y", "weights"):
        array = getattr(source, name)
        setattr(other, name, None if array is None else array[none].copy())
    return other


def move_rows(data, known, comm, n_ranks, n_groups=None):
    """Return loaded data after its rows have moved to the first ``n_ranks`` ranks.

    Parameters
    ----------
    data : Loaded or None
        This rank's; None if it has no rows.
    known : RowsInMemory
    comm : MPI.Comm
        The ranks that had rows are its first ones.
    n_ranks : int
    n_groups : int, optional
        For exact mode: each rank gets whole groups of rows.

    Returns
    -------
    Loaded
        For `on_ranks`.

    Notes
    -----
    Collective. A rank holds its old and its new rows at the same time.
    """
    data, found = known.empty if data is None else data, {}
    for name, old in known.cuts.items():
        n = old[-1]
        new = bounds(n, n_ranks)
        if n_groups is not None:
            new = row_cuts(n, n_groups, n_ranks)
        cuts = (own + [n] * (comm.size + 1 - len(own)) for own in (old, new))
        found[name] = getattr(data, name).moved(*cuts, comm)
    return replace(data, **found)


def on_ranks(data, comm):
    """Return moved data as the data of ``comm``, the ranks that have its rows."""
    found = {}
    for name in PARTS:
        source = getattr(data, name)
        if source is not None:
            source = found[name] = copy.copy(source)
            source.key, source.n_ranks = key_of(comm), comm.size
    return replace(data, **found)
