"""Costs of exchanges, fitted to measured ones: latencies, bandwidths, compression."""

from dataclasses import dataclass, replace

import numpy as np

from pympi_train.scaling.model import counts, ways
from pympi_train.scaling.model.compute import shared_ranks
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.least_squares import robust
from pympi_train.scaling.model.links import ON_A_NODE, Links, with_network

# Seconds of a call and per byte, where none was measured: the CPU time of a rank in a
# sum of 38.7 MB (docs/results/exchange-1gbit.md, 2026-11-24).
CODECS = {
    "bf16": (0.0, 0.57e-9),
    "fp16": (0.0, 0.57e-9),
    "int8": (0.0, 0.44e-9),
    "topk": (0.0, 0.72e-9),
    "powersgd": (0.0, 1.6e-9),
}
INNER = ("inner_s", "inner_s_per_byte", "shared_s_per_byte")
COUNTS = {
    "plain": counts.allreduce,
    "pieces": counts.in_pieces,
    "slices": counts.direct,
    "flags": counts.by_flags,
}


@dataclass(frozen=True)
class Costs:
    """Fitted costs of exchanges.

    Attributes
    ----------
    mpi, slices : Links
        Of MPI's Allreduce, and of sums by slices: an MPI library sends them by
        different protocols, so each has its own parameters [1]_.
    flags : Links
        Of small sums in shared memory, on one node.
    codecs : dict of str to tuple of float
        Seconds of a call and per byte of a compression.
    is_outer_known : bool
        Whether messages between nodes were measured or their network was given. If not,
        they are taken to be as fast as those within a node.

    References
    ----------
    .. [1] J. Pjesivac-Grbovic et al., "Performance analysis of MPI collective
       operations", Cluster Computing 10 (2007).
    """

    mpi: Links
    slices: Links
    codecs: dict
    is_outer_known: bool
    flags: Links = ON_A_NODE

    def codec_s(self, kind, n_bytes):
        """Return the seconds of compressing and decompressing ``n_bytes``."""
        fixed_s, s_per_byte = self.codecs.get(kind, CODECS[kind])
        return fixed_s + s_per_byte * n_bytes


def costs_on(network, costs):
    """Return ``costs`` with another network between nodes."""
    mpi, slices = (with_network(one, network) for one in (costs.mpi, costs.slices))
    return replace(costs, mpi=mpi, slices=slices, is_outer_known=True)


def fit_costs(exchanges):
    """Return the Costs that explain short exchanges best.

    Without any, messages within a node take as long as `links.ON_A_NODE`.
    """
    is_outer = any(one["nodes"] > 1 for one in exchanges)
    mpi = fit_links(exchanges, ("plain", "pieces"))
    slices = fit_links(exchanges, ("slices",), are_posted=True)
    flags = fit_links(_by_flags(exchanges), ("flags",), are_posted=True)
    costs = Costs(mpi, slices, {}, is_outer, flags)
    return replace(costs, codecs=_fit_codecs(costs, exchanges))


def _by_flags(exchanges):
    """Return the exchanges of strategy allreduce that took shared memory."""
    return [
        {**one, "strategy": "flags"}
        for one in exchanges
        if one["strategy"] == "allreduce"
        and counts.fits_flags(place_of(one), one["bytes"])
    ]


def place_of(one):
    """Return the Place of a measurement or an exchange."""
    return Place(one["ranks"], shared_ranks(one))


def fit_links(exchanges, names, *, are_posted=False):
    """Return the Links of the ways to sum in ``names``.

    With a single number of ranks, latency cannot be told from the time of a call. It is
    taken as latency, which grows with the ranks. With ``are_posted``, where a rank
    posts its messages together, each then counts as ``ON_A_NODE.inner_s``, the rest as
    the call.
    """
    cases = [one for one in exchanges if one["strategy"] in names and one["ranks"] > 1]
    if not cases:
        return ON_A_NODE
    matrix = [COUNTS[one["strategy"]](place_of(one), one["bytes"]) for one in cases]
    matrix, seconds = np.array(matrix), np.array([one["median_s"] for one in cases])
    if are_posted and len({one["ranks"] for one in cases}) == 1:
        posted = np.zeros(matrix.shape[1])
        posted[[0, 3]] = ON_A_NODE.inner_s
        seconds = np.maximum(seconds - matrix @ posted, 0.1 * seconds)
        matrix[:, posted > 0] = 0.0
        found = Links(*(robust(matrix, seconds) + posted).tolist())
    else:
        found = Links(*robust(matrix, seconds).tolist())
    places = [place_of(one) for one in cases]
    if all(place.shared == 1 for place in places):  # no message within a node
        inner = {name: getattr(ON_A_NODE, name) for name in INNER}
        return replace(found, **inner)
    if all(place.nodes == 1 for place in places):  # as if all ranks shared one node
        per_byte = found.inner_s_per_byte
        return replace(found, outer_s=found.inner_s, outer_s_per_byte=per_byte)
    return found


def _fit_codecs(costs, exchanges):
    """Return seconds of a call and per byte of each compression that was measured."""
    found = {}
    for kind in CODECS:
        cases = [one for one in exchanges if one["strategy"] == f"compressed {kind}"]
        cases = [one for one in cases if one["ranks"] > 1]
        if cases:
            found[kind] = _fit_codec(costs, kind, cases)
    return found


def _fit_codec(costs, kind, cases):
    """Return what is left once sending is explained.

    With sending s, computing c and k pieces, a wire takes ``c + s / k`` where computing
    is longer, and ``s + c / k`` elsewhere, which tells less of c.
    """
    seconds = np.array([one["median_s"] for one in cases])
    places = [(place_of(one), one["bytes"]) for one in cases]
    sent_s = np.array([ways.compressed_parts(costs, kind, *of)[0] for of in places])
    work = np.array([ways.codec_bytes(kind, *of) for of in places])
    matrix = np.column_stack([work, np.ones(len(work))])
    pieces = np.array([ways.n_pieces(kind, *of) for of in places])
    is_longer = seconds >= sent_s * (1 + 1 / pieces)
    known_s = np.where(is_longer, sent_s / pieces, sent_s)
    matrix = matrix / np.where(is_longer, 1, pieces)[:, None]
    s_per_byte, fixed_s = robust(matrix, seconds, known_s).tolist()
    return fixed_s, s_per_byte
