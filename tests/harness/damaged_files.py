"""Damaged copies of the files of a checkpoint: each kind of damage that disks do."""

import itertools
import random

BLOCKS = (16, 64, 512, 4096)  # bytes


def each_damage(content, others):
    """Yield (what, damaged content) for all small damages of a file, in order.

    Parameters
    ----------
    content : bytes
    others : list of bytes
        Files that a mix-up could put in its place.
    """
    for at in range(8 * len(content)):
        yield f"bit {at} flipped", flipped(content, at)
    for size in range(len(content)):
        yield f"cut to {size} bytes", content[:size]
    for size in BLOCKS:
        for start in range(0, len(content), size):
            stop = min(start + size, len(content))
            damaged = content[:start] + bytes(stop - start) + content[stop:]
            yield f"bytes {start} to {stop} zero", damaged
    for i, other in enumerate(others):
        yield f"swapped for file {i}", other


def random_damages(content, others, seed):
    """Yield (what, damaged content), without end."""
    rng = random.Random(seed)
    kinds = (_bits, _bytes, _zeros, _lost, _moved, _added, _spliced)
    for number in itertools.count():
        kind = rng.choice(kinds)
        what = f"{kind.__name__[1:]}, number {number} of seed {seed}"
        yield what, kind(rng, content, others)


def flipped(content, at):
    """Return the content with one bit flipped."""
    found = bytearray(content)
    found[at // 8] ^= 1 << at % 8
    return bytes(found)


def _stretch(rng, content):
    start = rng.randrange(len(content))
    return start, rng.randrange(start, len(content)) + 1


def _bits(rng, content, others):
    for _ in range(rng.randint(1, 8)):
        content = flipped(content, rng.randrange(8 * len(content)))
    return content


def _bytes(rng, content, others):
    found = bytearray(content)
    for _ in range(rng.randint(1, 16)):
        found[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(found)


def _zeros(rng, content, others):
    start, stop = _stretch(rng, content)
    return content[:start] + bytes(stop - start) + content[stop:]


def _lost(rng, content, others):
    start, stop = _stretch(rng, content)
    return content[:start] + content[stop:]


def _moved(rng, content, others):
    """Copy a stretch to another place."""
    start, stop = _stretch(rng, content)
    at = rng.randrange(len(content))
    return (content[:at] + content[start:stop] + content[at:])[: len(content)]


def _added(rng, content, others):
    return content + rng.randbytes(rng.randint(1, 100))


def _spliced(rng, content, others):
    """Begin as the file, and go on as another one from the same place."""
    other, at = rng.choice(others), rng.randrange(len(content))
    return content[:at] + other[at:]
