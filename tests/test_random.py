import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train import random as philox
from pympi_train.random import INIT, ORDER, bits, uniform

MASK = 2**64 - 1


def philox4x64(counter, key, rounds=10):
    """Salmon et al. 2011, section 3.3, in Python integers."""
    x, (k0, k1) = list(counter), key
    for _ in range(rounds):
        a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(b >> 64) ^ x[1] ^ k0, b & MASK, (a >> 64) ^ x[3] ^ k1, a & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return x


def word(seed, stream, epoch, w):
    return philox4x64([w // 4, 0, 0, 0], (seed, stream * 2**48 + epoch))[w % 4]


# Of the Random123 distribution (kat_vectors): counter, key, output.
KNOWN_ANSWERS = """
0000000000000000 0000000000000000 0000000000000000 0000000000000000
0000000000000000 0000000000000000
16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b

ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff
ffffffffffffffff ffffffffffffffff
87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0

243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89
452821e638d01377 be5466cf34e90c6c
a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6
"""


@pytest.mark.parametrize("vector", KNOWN_ANSWERS.strip().split("\n\n"))
def test_reference_gives_the_known_answers(vector):
    numbers = [int(text, 16) for text in vector.split()]
    assert philox4x64(numbers[:4], numbers[4:6]) == numbers[6:]


def test_first_block_is_the_known_answer():
    want = KNOWN_ANSWERS.strip().split("\n\n")[0].split()[6:]
    assert [f"{w:016x}" for w in bits(0, 0, 0, 0, 4).tolist()] == want


@given(
    seed=st.integers(0, MASK),
    stream=st.integers(0, 2**16 - 1),
    epoch=st.integers(0, 2**48 - 1),
    start=st.integers(0, 9) | st.integers(0, MASK),
    count=st.integers(0, 13),
)
def test_any_range_of_words_equals_the_reference(seed, stream, epoch, start, count):
    got = bits(seed, stream, epoch, start, count)
    assert got.dtype == np.uint64
    want = [word(seed, stream, epoch, start + i) for i in range(count)]
    assert got.tolist() == want


def test_streams_are_all_different():
    streams = [v for k, v in vars(philox).items() if k.isupper() and "_" not in k]
    assert len(streams) >= 4
    firsts = {int(bits(3, stream, 0, 0, 1)[0]) for stream in streams}
    assert len(firsts) == len(streams)


@pytest.mark.parametrize(
    "bad",
    [
        dict(seed=-1),
        dict(seed=2**64),
        dict(stream=2**16),
        dict(epoch=2**48),
        dict(start=-1),
        dict(count=-1),
    ],
)
def test_rejects(bad):
    good = dict(seed=0, stream=ORDER, epoch=0, start=0, count=1)
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must lie in .* got"):
        bits(**good | bad)


def test_uniform_is_the_upper_53_bits():
    got = uniform(5, INIT, 1000, start=3)
    want = [(word(5, INIT, 0, 3 + i) >> 11) / 2**53 for i in range(1000)]
    assert_array_equal(got, want)
    assert got.dtype == np.float64


def test_uniform_reaches_0_but_never_1(monkeypatch):
    edges = np.array([0, 2**11 - 1, MASK], dtype=np.uint64)
    monkeypatch.setattr(philox, "bits", lambda *args: edges.copy())
    got = uniform(0, INIT, 3)
    assert got.tolist() == [0, 0, 1 - 2.0**-53]
