"""Memory of a rank, by strategy."""

import glob
import os
from typing import NamedTuple

import numpy as np

from pympi_train.paths import is_remote

# Python, NumPy, MPI and compiled code: VmHWM of a rank that trains an MLP 8-64-2 on two
# ranks was 191 and 198 MB (MPICH 5.0.2, 2026-11-30), 106 to 110 MB of it mapped files.
BASE_BYTES = 200_000_000


class MemoryNeeds(NamedTuple):
    """What a training keeps in memory, whatever its strategy.

    Attributes
    ----------
    n_bytes : int
        Of the parameters.
    n_states : int
        Blocks of optimizer state as large as the parameters: 2 with Adam.
    largest_bytes : int
        Of the largest layer.
    row_bytes : int
        Of the activations of a row: outputs of hidden layers and their gradients.
    micro_rows : int
        Most rows of a micro-batch.
    file_bytes : int
        Of rows that stay in memory, on all ranks together.
    n_groups : int
        Groups of rows with reduction exact.
    is_nesterov : bool
        Whether strategy local keeps a momentum.
    """

    n_bytes: int
    n_states: int
    largest_bytes: int
    row_bytes: int
    micro_rows: int
    file_bytes: int
    n_groups: int = 8
    is_nesterov: bool = False


def needs_of(config, gradient_bytes):
    """Return the MemoryNeeds of a configuration, for the bytes of its parameters."""
    o, hidden = config.optimizer, config.model.hidden
    itemsize = np.dtype(config.model.dtype).itemsize
    is_deep = config.model.kind in ("mlp", "neural-ngram")
    widths = hidden if is_deep else []
    states = {"adam": 2, "adamw": 2, "adagrad": 1, "sgd": int(o.momentum > 0)}
    states["lbfgs"] = 2 * o.history
    return MemoryNeeds(
        n_bytes=gradient_bytes,
        n_states=states.get(o.name, 0),
        largest_bytes=largest_layer(gradient_bytes, widths, itemsize),
        row_bytes=2 * itemsize * sum(widths),
        micro_rows=config.train.micro_batch_size,
        file_bytes=_file_bytes(config.data),
        n_groups=config.parallel.virtual_shards,
        is_nesterov=config.parallel.outer == "nesterov",
    )


def largest_layer(n_bytes, hidden, itemsize):
    """Return an upper bound of the bytes of the largest layer.

    The layers between hidden ones are known by their widths; the first and the last
    share the rest.
    """
    inner = [(a + 1) * b * itemsize for a, b in zip(hidden, hidden[1:])]
    return max([n_bytes - sum(inner), *inner])


def _file_bytes(data):
    if data.memory in ("mapped", "stream"):
        return 0
    paths = [data.train] if isinstance(data.train, str) else data.train
    found = [
        name
        for path in paths
        if not is_remote(path)
        for name in (glob.glob(os.path.join(path, "*")) + glob.glob(path))
    ]
    return sum(os.path.getsize(name) for name in set(found) if os.path.isfile(name))


def rank_bytes(needs, way, place, rows):
    """Return the bytes that a rank needs at most, for its ``rows`` of a batch.

    Parameters
    ----------
    needs : MemoryNeeds
    way : Way
    place : Place
    rows : float

    Notes
    -----
    In blocks of the n parameters, with k blocks of optimizer state, P ranks and R ranks
    on a node, the docstrings of the strategies give: allreduce ``2 + k``; sharded
    ``2 + k / P``, ``1 + (1 + k) / P`` with a layer, ``(2 + k) / P`` with two layers;
    hierarchical ``(R + 1 + k) / R``; local ``3 + k``, one more with Nesterov; a worker
    of servers 2, a server ``(3 + k) / S``; exact at most ``2 log2 V + 3 + k``. A
    compression keeps one block of feedback, micro-batches one of gradients.
    """
    n, k, ranks = needs.n_bytes, needs.n_states, place.ranks
    layer, part = needs.largest_bytes, needs.n_bytes / place.ranks
    blocks = {
        "allreduce": (2 + k) * n,
        "hierarchical": (place.shared + 1 + k) * n / place.shared,
        "local": (3 + k + needs.is_nesterov) * n,
        "server": max(2 * n, (3 + k) * n / way.servers),
        "exact": (2 * max(needs.n_groups - 1, 1).bit_length() + 3 + k) * n,
        "sharded": {
            1: 2 * n + k * part + layer / ranks,
            2: n + (1 + k) * part + layer + layer / ranks,
            3: (2 + k) * part + 2 * layer + layer / ranks,
        }[way.stage],
    }[way.strategy]
    if way.compression != "none":
        blocks += n + part
    if rows > needs.micro_rows:
        blocks += n
    activations = needs.row_bytes * min(rows, needs.micro_rows)
    return BASE_BYTES + blocks + activations + needs.file_bytes / ranks
