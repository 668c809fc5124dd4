"""One clock for all ranks, from messages that go back and forth."""

from typing import NamedTuple

import numpy as np


def offset_from(sent_s, answered_s, received_s):
    """Return the offset of another clock against this one, and its maximum error.

    Of several round trips the shortest counts, as in the clock filter of NTP [1]_: the
    other rank answered between ``sent_s`` and ``received_s``, so the middle is wrong by
    half of the round trip at most.

    Parameters
    ----------
    sent_s, received_s : sequence of float
        By this rank's clock.
    answered_s : sequence of float
        By the other rank's clock.

    Returns
    -------
    offset_s : float
        To be added to this clock.
    error_s : float

    References
    ----------
    .. [1] D. Mills et al., "Network Time Protocol Version 4", RFC 5905 (2010),
       sections 8 and 10.
    """
    sent_s, received_s = np.asarray(sent_s), np.asarray(received_s)
    trips_s = received_s - sent_s
    best = int(trips_s.argmin())
    offset_s = answered_s[best] - (sent_s[best] + received_s[best]) / 2
    return float(offset_s), float(trips_s[best]) / 2


def rounds_of(rank, size):
    """Return the rounds of a binomial tree in which a rank takes part.

    Parameters
    ----------
    rank, size : int

    Returns
    -------
    list of (int, bool)
        (the other rank, whether it is the parent), in order. A rank has at most one
        parent, which comes first, and ``log2(size)`` children.
    """
    rounds, step = [], 1 << (size - 1).bit_length()
    while step > 1:
        half = step >> 1
        if rank % step == half:
            rounds.append((rank - half, True))
        elif rank % step == 0 and rank + half < size:
            rounds.append((rank + half, False))
        step = half
    return rounds


class Reading(NamedTuple):
    """The offset of this rank's clock against that of rank 0, at a moment.

    Attributes
    ----------
    at_s : float
        By this rank's clock.
    offset_s : float
        To be added to this rank's clock.
    error_s : float
        Maximum error of ``offset_s``.
    """

    at_s: float
    offset_s: float
    error_s: float = 0.0


def on_common_clock(times_s, first, last):
    """Return times of this rank's clock by the clock of rank 0.

    Parameters
    ----------
    times_s : ndarray
    first, last : Reading
        The offset between them is that of the straight line through both: clocks
        drift by some microseconds a second. Beyond them it is the nearer one's.
    """
    if last.at_s <= first.at_s:
        return times_s + first.offset_s
    points_s = [first.at_s, last.at_s], [first.offset_s, last.offset_s]
    return times_s + np.interp(times_s, *points_s)
