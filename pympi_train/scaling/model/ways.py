"""The ways to exchange gradients: settings of ``[parallel]``, and what each costs."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from pympi_train.comm.sums.topk import SHARE
from pympi_train.scaling.model import counts
from pympi_train.scaling.model.counts import Place

WIRES = {"bf16": 0.5, "fp16": 0.507, "int8": 0.254}  # bytes sent, relative to float32
COMPRESSIONS_OF = {
    "allreduce": ("none", *WIRES, "topk", "powersgd"),
    "hierarchical": ("none", *WIRES),
    "sharded": ("none",),
    "local": ("none", *WIRES, "topk", "powersgd"),
    "server": ("none", *WIRES),
    "exact": ("none",),
}
SAME_RESULT = ("allreduce", "hierarchical", "sharded", "server", "exact")
SAME, CLOSE, DIFFERS = "of one process", "close to one process", "differs"
FACTOR_ELEMENTS = 8  # rank 4, two factors: of a square matrix, times its side
CONTROL_BYTES = 64


@dataclass(frozen=True)
class Way:
    """Settings of ``[parallel]``.

    Attributes
    ----------
    strategy : str
        A key of ``COMPRESSIONS_OF``; exact is allreduce with ``reduction = "exact"``.
    compression : str
    overlap : bool
        Of allreduce.
    stage : int
        Of sharded.
    local_steps, servers : int
    """

    strategy: str
    compression: str = "none"
    overlap: bool = False
    stage: int = 1
    local_steps: int = 1
    servers: int = 1

    def __str__(self):
        about = {
            "sharded": f", stage {self.stage}",
            "local": f", {self.local_steps} steps",
            "server": f", {self.servers} servers" if self.servers > 1 else "",
        }.get(self.strategy, "")
        about += ", overlap" if self.overlap else ""
        about += "" if self.compression == "none" else f", {self.compression}"
        return self.strategy + about

    @property
    def result(self):
        """How the trained model relates to that of one process, as docs/choosing.md."""
        if self.strategy not in SAME_RESULT:
            return DIFFERS
        return SAME if self.compression == "none" else CLOSE

    def settings(self):
        """Return the keys of ``[parallel]`` that select this way, and their values."""
        exact = self.strategy == "exact"
        found = {"strategy": "allreduce" if exact else self.strategy}
        if exact:
            found["reduction"] = "exact"
        if self.compression != "none":
            found["compression"] = self.compression
        if self.strategy == "allreduce" and self.compression == "none":
            found["overlap"] = "on" if self.overlap else "off"
        for strategy, name in OWN_KEYS.items():
            if self.strategy == strategy:
                found[name] = getattr(self, name)
        return found


OWN_KEYS = {"sharded": "stage", "local": "local_steps", "server": "servers"}


def all_ways(*, local_steps=8, servers=1):
    """Return every Way that is modelled."""
    found = [
        Way(strategy, compression, local_steps=local_steps, servers=servers)
        for strategy, kinds in COMPRESSIONS_OF.items()
        for compression in kinds
        if strategy != "sharded"
    ]
    found += [Way("sharded", stage=stage) for stage in (1, 2, 3)]
    found.append(Way("allreduce", overlap=True))
    return found


class Gradient(NamedTuple):
    """What ranks exchange.

    Attributes
    ----------
    n_bytes : float
    n_layers : int
        Of the model, for strategy sharded.
    factor_bytes : float or None
        Of both factors of PowerSGD together; as of one square matrix if None.
    """

    n_bytes: float
    n_layers: int = 1
    factor_bytes: float | None = None


def exchange_s(costs, way, place, gradient):
    """Return the seconds of a way's exchange of a gradient, without overlap.

    Parameters
    ----------
    costs : Costs
        Fitted parameters: ``costs.mpi`` and ``costs.slices`` are Links, and
        ``costs.codec_s(kind, n_bytes)`` the time of compression.
    way : Way
    place : Place
    gradient : Gradient
    """
    if place.ranks == 1:
        return 0.0
    if _goes_with_control(way, place, gradient.n_bytes):
        return _flags_s(costs, place, CONTROL_BYTES + gradient.n_bytes)
    of_strategy = _OF_STRATEGY[way.strategy]
    seconds = _control_s(costs, place) + of_strategy(costs, way, place, gradient)
    return seconds / way.local_steps if way.strategy == "local" else seconds


def _goes_with_control(way, place, n_bytes):
    is_plain = (way.strategy, way.compression) == ("allreduce", "none")
    return is_plain and counts.fits_flags(place, n_bytes)


def _control_s(costs, place):
    if counts.fits_flags(place, CONTROL_BYTES):
        return _flags_s(costs, place, CONTROL_BYTES)
    return counts.allreduce(place, CONTROL_BYTES).seconds(costs.mpi)


def _flags_s(costs, place, n_bytes):
    return counts.by_flags(place, n_bytes).seconds(costs.flags)


def sum_s(costs, kind, place, n_bytes, factor_bytes=None):
    """Return the seconds of one sum of a block over the ranks, compressed by ``kind``.

    Uncompressed, small blocks on one node take its shared memory; others the faster of
    MPI's Allreduce, in one call or in pieces, and of
    slices, as strategy allreduce chooses by measurement. A wire encodes the next piece
    while others are sent: the longer of both counts, and of the shorter what the first
    piece takes. topk and powersgd compute before they send.
    """
    if place.ranks == 1:
        return 0.0
    if kind == "none" and counts.fits_flags(place, n_bytes):
        return _flags_s(costs, place, n_bytes)
    if kind == "none":
        found = [counts.allreduce(place, n_bytes).seconds(costs.mpi)]
        if n_bytes >= 2**20:  # trials.LEAST_BYTES
            found.append(counts.in_pieces(place, n_bytes).seconds(costs.mpi))
            found.append(counts.direct(place, n_bytes).seconds(costs.slices))
        return min(found)
    sent_s, codec_s = compressed_parts(costs, kind, place, n_bytes, factor_bytes)
    return pipelined_s(sent_s, codec_s, n_pieces(kind, place, n_bytes))


def pipelined_s(a_s, b_s, pieces):
    """Return the seconds of two stages through which pieces go one after another."""
    return max(a_s, b_s) + min(a_s, b_s) / pieces


def n_pieces(kind, place, n_bytes):
    """Return the pieces that a compressed sum encodes one after another."""
    if kind not in WIRES:
        return 1
    piece = counts.piece_for(place.ranks) * counts.ITEM_BYTES
    return max(1, math.ceil(n_bytes / piece))


def compressed_parts(costs, kind, place, n_bytes, factor_bytes=None):
    """Return seconds of sending and of computing of a compressed sum."""
    if kind in WIRES:
        calls = 2 * n_pieces(kind, place, n_bytes)
        sent = counts.direct(place, WIRES[kind] * n_bytes, calls=calls)
        codec_s = costs.codec_s(kind, codec_bytes(kind, place, n_bytes))
        return sent.seconds(costs.slices), codec_s
    if kind == "topk":
        sent_s = 2 * counts.allgather(place, SHARE * n_bytes).seconds(costs.mpi)
    else:
        if factor_bytes is None:
            side = math.sqrt(n_bytes / counts.ITEM_BYTES)
            factor_bytes = FACTOR_ELEMENTS * side * counts.ITEM_BYTES
        block = counts.allreduce(place, factor_bytes / 2)
        sent_s = 2 * block.seconds(costs.mpi)
    return sent_s, costs.codec_s(kind, codec_bytes(kind, place, n_bytes))


def codec_bytes(kind, place, n_bytes):
    """Return the bytes that a compressed sum computes with.

    With topk, a rank also adds the elements of all ranks.
    """
    return n_bytes * (1 + 2 * SHARE * place.ranks) if kind == "topk" else n_bytes


def _allreduce(costs, way, place, gradient):
    factor_bytes = gradient.factor_bytes
    return sum_s(costs, way.compression, place, gradient.n_bytes, factor_bytes)


def _hierarchical(costs, way, place, gradient):
    """Two barriers and a read of all gradients of the node; slices between nodes.

    Each of R ranks sums ``n / R`` elements over N nodes, all at the same time.
    """
    shared, leaders = place.shared, Place(place.nodes, 1)
    n_bytes = gradient.n_bytes
    node = counts.Traffic(2 * (shared - 1), n_bytes, n_bytes * (shared - 1), 0, 0, 0, 2)
    between_s = sum_s(costs, way.compression, leaders, n_bytes)  # of one port
    return node.seconds(costs.mpi) + between_s


def _sharded(costs, way, place, gradient):
    """Reduce-scatter and allgather of each layer by direct exchange; 3 at stage 3."""
    phases = 3 if way.stage == 3 else 2
    calls = phases * gradient.n_layers
    sent = counts.direct(place, gradient.n_bytes, phases, calls=calls)
    return sent.seconds(costs.slices)


def _exact(costs, way, place, gradient):
    return counts.halved(place, gradient.n_bytes).seconds(costs.mpi)


def _server(costs, way, place, gradient):
    n_bytes = gradient.n_bytes
    push = WIRES.get(way.compression, 1.0) * n_bytes
    sent = counts.at_servers(place, push, n_bytes, way.servers)
    is_plain = way.compression == "none"
    codec_s = 0.0 if is_plain else costs.codec_s(way.compression, n_bytes)
    return sent.seconds(costs.mpi) + codec_s


_OF_STRATEGY = {
    "allreduce": _allreduce,
    "local": _allreduce,
    "hierarchical": _hierarchical,
    "sharded": _sharded,
    "exact": _exact,
    "server": _server,
}
