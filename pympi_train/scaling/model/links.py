"""Latencies and bandwidths between ranks, and networks as users describe them."""

import math
from dataclasses import dataclass, replace

import numpy as np

from pympi_train.errors import ConfigError

MAX_GBIT = 1e6
MAX_US = 1e6
EXAMPLE = "expected gbit=RATE,us=LATENCY, as in gbit=25,us=2"


@dataclass(frozen=True)
class Links:
    """What a collective takes, in the Hockney model [1]_ with shared links.

    Attributes
    ----------
    inner_s, outer_s : float
        Latency of a message within a node, and between nodes.
    inner_s_per_byte : float
        Of a rank that is alone on its node's memory.
    shared_s_per_byte : float
        More for each other rank of the node: contention for the memory.
    outer_s_per_byte : float
        Of a node's network port, which its ranks share.
    crossed_s_per_byte : float
        More for bytes that go to several nodes at the same time: the messages of a port
        wait for one another where they meet those of other nodes [2]_.
    call_s : float
        Of one call, whatever it sends. It is last, so that a fit to a single number of
        ranks takes what it cannot tell from latency as latency, which grows with ranks.

    References
    ----------
    .. [1] R. W. Hockney, "The communication challenge for MPP: Intel Paragon and Meiko
       CS-2", Parallel Computing 20 (1994).
    .. [2] M. J. Karol, M. G. Hluchyj and S. P. Morgan, "Input versus output queueing on
       a space-division packet switch", IEEE Trans. Commun. 35 (1987): 1.47 times as
       long on 3 ports, 1.71 times on many, if the order of messages is random.
    """

    inner_s: float
    inner_s_per_byte: float
    shared_s_per_byte: float
    outer_s: float
    outer_s_per_byte: float
    crossed_s_per_byte: float
    call_s: float

    @property
    def vector(self):
        """The seven numbers, shape (7,), in the order of `counts.Traffic`."""
        return np.array([getattr(self, name) for name in self.__dataclass_fields__])


# Without measurements: a shared-memory transport that copies at 4 GB/s.
ON_A_NODE = Links(1e-6, 2.5e-10, 2.5e-11, 1e-6, 2.5e-10, 0.0, 10e-6)


def parse_network(text):
    """Return latency in seconds and seconds per byte of a network.

    >>> parse_network("gbit=8,us=2")
    (2e-06, 1e-09)

    Raises
    ------
    ConfigError
        If it is not as in the example.
    """
    found = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if name not in ("gbit", "us") or not equals:
            raise ConfigError(f"--network {text}: {EXAMPLE}; got {part.strip()!r}")
        if name in found:
            raise ConfigError(f"--network {text}: {name} is there twice")
        found[name] = _number(text, name, number)
    if missing := {"gbit", "us"} - found.keys():
        raise ConfigError(f"--network {text}: {min(missing)} is missing: {EXAMPLE}")
    return found["us"] / 1e6, 8e-9 / found["gbit"]


def _number(text, name, number):
    try:
        value = float(number) if number.isascii() and "_" not in number else math.nan
    except ValueError:
        value = math.nan
    most = MAX_GBIT if name == "gbit" else MAX_US
    if not 1e-6 <= value <= most:  # also NaN
        raise ConfigError(
            f"--network {text}: {name} must be a number from 0.000001 to {most:g}, got "
            f"{number!r}"
        )
    return value


def with_network(links, network):
    """Return ``links`` with the latency and rate of another network between nodes.

    Crossing messages take as many times the rate as before.
    """
    outer_s, outer_s_per_byte = network
    times = links.crossed_s_per_byte / (links.outer_s_per_byte or math.inf)
    return replace(
        links,
        outer_s=outer_s,
        outer_s_per_byte=outer_s_per_byte,
        crossed_s_per_byte=times * outer_s_per_byte,
    )
