"""Short exchanges of blocks of several sizes, for the model of the network."""

from pympi_train.bench import exchange
from pympi_train.comm.sums.compress import COMPRESSIONS
from pympi_train.pool.machine import machine_of

N_SIZES = 6
LEAST_BYTES = 4
ROUNDS = 7
MOST_BYTES = 2**28


def sizes_around(gradient_bytes):
    """Return sizes of blocks in bytes, evenly by their logarithm.

    The largest is four times the gradient, at least 64 KiB and at most ``MOST_BYTES``.

    >>> sizes_around(40_000)
    [4, 32, 276, 2308, 19216, 160000]
    """
    most = min(max(4 * gradient_bytes, 2**16), MOST_BYTES)
    ratio = (most / LEAST_BYTES) ** (1 / (N_SIZES - 1))
    found = [int(LEAST_BYTES * ratio**i) // 4 * 4 for i in range(N_SIZES - 1)]
    return [*dict.fromkeys(found), most]


def measure_exchanges(comm, gradient_bytes):
    """Time exchanges; return them as a study has them, on every rank. Collective."""
    nodes = list(machine_of(comm).nodes)
    sizes = sizes_around(gradient_bytes)
    found = exchange.measure(comm, max_bytes=MOST_BYTES, rounds=ROUNDS, sizes=sizes)
    about = {"ranks": comm.size, "nodes": len(set(nodes)), "node_of": nodes}
    return [
        {
            **about,
            "bytes": size["bytes"],
            "strategy": _name(way),
            "median_s": times["median_s"],
            "seconds": times["seconds"],
        }
        for size in found["sizes"]
        for way, times in size["ways"].items()
        if way != "plain again"
    ]


def _name(way):
    return f"compressed {way}" if way in COMPRESSIONS else way
