"""Studies whose times follow from planted parameters."""

import numpy as np

from pympi_train.scaling.model import counts, exchange_costs, ways
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.exchange_costs import Costs
from pympi_train.scaling.model.links import Links

MPI = Links(2e-6, 4e-10, 6e-11, 1.5e-5, 9e-9, 0.0, 3e-5)
SLICES = Links(3e-6, 7e-10, 2e-11, 8e-6, 8.5e-9, 3e-9, 5e-5)
FLAGS = Links(4e-7, 1e-10, 2e-11, 4e-7, 1e-10, 0.0, 5e-6)
CODECS = {
    "bf16": (1e-4, 2e-8),
    "fp16": (1e-4, 3e-8),
    "int8": (1e-4, 4e-8),
    "topk": (2e-4, 2e-9),
    "powersgd": (3e-4, 3e-9),
}
COSTS = Costs(MPI, SLICES, CODECS, True, FLAGS)
PLACES = [
    Place(*of)
    for of in ((2, 1), (3, 1), (4, 1), (2, 2), (3, 3), (4, 4), (8, 4), (6, 2))
]
SIZES = (4, 512, 2**14, 2**18, 2**22, 2**24)
ROW_S, FIXED_S, SHARED_ROW_S, UPDATE_S = 2e-5, 3e-4, 4e-6, 2e-4
N_BYTES = 400_000


def node_of(place):
    return [rank // place.per_node for rank in range(place.ranks)]


def exchange(place, n_bytes, strategy, seconds):
    return {
        "ranks": place.ranks,
        "nodes": place.nodes,
        "node_of": node_of(place),
        "bytes": n_bytes,
        "strategy": strategy,
        "median_s": seconds,
        "seconds": [seconds],
    }


def exchanges(places=PLACES, noise=0.0, seed=0, costs=COSTS):
    rng, found = np.random.default_rng(seed), []
    for place in places:
        for n_bytes in SIZES:
            for name, count in exchange_costs.COUNTS.items():
                links = getattr(costs, name, costs.mpi)
                times = 1 + noise * rng.standard_normal()
                seconds = times * count(place, n_bytes).seconds(links)
                if name != "flags":
                    found.append(exchange(place, n_bytes, name, seconds))
                elif counts.fits_flags(place, n_bytes):
                    found.append(exchange(place, n_bytes, "allreduce", seconds))
            for kind in CODECS if n_bytes >= 2**16 else ():
                seconds = ways.sum_s(costs, kind, place, n_bytes)
                found.append(exchange(place, n_bytes, f"compressed {kind}", seconds))
    return found


def measurement(place, batch_size=960, strategy="allreduce", jitter=0.0, seed=0):
    """Return a launch whose computing takes what is planted."""
    rng, steps = np.random.default_rng(seed), 40
    rows = batch_size / place.ranks
    compute_s = FIXED_S + rows * (ROW_S + SHARED_ROW_S * (place.shared - 1))
    draws = compute_s * (1 + jitter * rng.exponential(size=(steps, place.ranks)))
    wait_s = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    sent_s = 0.0
    if place.ranks > 1:
        gradient = ways.Gradient(N_BYTES)
        sent_s = ways.exchange_s(COSTS, ways.Way(strategy), place, gradient)
    parts_s = {name: [0.0] * place.ranks for name in ("input", "pack")}
    parts_s |= {"compute": draws.mean(axis=0).tolist(), "wait": wait_s.tolist()}
    parts_s |= {"transfer": [sent_s] * place.ranks, "update": [UPDATE_S] * place.ranks}
    return {
        "mode": "strong",
        "repeat": 0,
        "cores_per_rank": 1,
        "parameters": N_BYTES // 4,
        "sent_bytes": 1.5 * N_BYTES,
        "steps": steps,
        "strategy": strategy,
        "exchange": {"strategy": strategy, "exchange": "mpi", "overlap": "off"},
        "ranks": place.ranks,
        "nodes": place.nodes,
        "node_of": node_of(place),
        "oversubscribed": False,
        "batch_size": batch_size,
        "gradient_bytes": N_BYTES,
        "step_s": (draws.max(axis=1) + sent_s + UPDATE_S).tolist(),
        "parts_s": parts_s,
        "compute_s": draws.tolist(),
        "joules": None,
        "error": None,
    }


def study(places=PLACES, **how):
    jitter = how.pop("jitter", 0.0)
    launches = [measurement(p, jitter=jitter) for p in (Place(1, 1), *places)]
    return {"measurements": launches, "exchanges": exchanges(places, **how)}
