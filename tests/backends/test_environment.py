"""Subnormal numbers are zero within `computing`, and only there."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pympi_train.backends import environment, threads
from pympi_train.backends.blocks import quiet
from pympi_train.backends.environment import computing, flushes, handed_on

SMALL = np.full(100, 1.2e-38, np.float32)  # just above the smallest normal number

pytestmark = pytest.mark.skipif(
    not flushes(), reason="not on Linux on x86-64 or AArch64"
)


def half():
    """Return half of a number whose half is subnormal, as the processor computes it."""
    return float((SMALL * np.float32(0.5)).max())


def test_within_and_no_longer():
    kept = half()
    assert kept > 0
    with computing():
        assert half() == 0
        with computing():
            assert half() == 0
        assert half() == 0
    assert half() == kept
    with pytest.raises(KeyError):
        with computing():
            raise KeyError
    assert half() == kept


def test_a_nested_entry_costs_no_call(monkeypatch):
    with computing():
        with monkeypatch.context() as patch:
            patch.setattr(environment, "_flush", None)
            patch.setattr(environment.np, "errstate", None)
            with computing():
                assert half() == 0
    assert half() > 0


def test_as_a_decorator():
    @computing()
    def halves(n):
        return [half()] + (halves(n - 1) if n else [])

    assert halves(2) == [0, 0, 0] and half() > 0


def test_subnormal_operands_are_zero_too():
    tiny = SMALL * np.float32(0.5)
    with computing():
        assert not (tiny * np.float32(1e30)).any()
        assert np.dot(tiny, np.full(100, 1e30, np.float32)) == 0


def test_nobody_is_warned():
    with computing(), np.errstate(under="raise"):  # as before
        assert np.isinf(np.float32(1) / np.zeros(1, np.float32)).all()
        assert np.isnan(np.zeros(1) / np.zeros(1)).all()


def test_loops_without_warnings_enter_no_error_state_within(monkeypatch):
    entered, errstate = [], np.errstate

    def counted(**how):
        entered.append(how)
        return errstate(**how)

    monkeypatch.setattr(np, "errstate", counted)
    divide = quiet(lambda: np.float32(1.0) / np.zeros(1, np.float32))
    assert divide()[0] == np.inf  # a warning is an error in these tests
    assert entered == [{"all": "ignore"}]
    with computing():
        entered.clear()
        assert divide()[0] == np.inf
    assert not entered


def test_another_thread_has_the_environment_that_it_is_handed():
    with ThreadPoolExecutor(1) as other:  # else that of the thread that started it
        for _ in range(2):
            with computing():
                assert other.submit(handed_on(half)).result() == 0
            assert other.submit(handed_on(half)).result() > 0


def test_all_of_a_ranks_threads_compute_alike():
    small = np.full(4 * threads.MIN_CHUNK, 1.2e-38, np.float32)

    def halves():
        out = np.ones_like(small)
        threads.for_chunks(
            lambda piece: np.multiply(small[piece], np.float32(0.5), out=out[piece]),
            out.size,
        )
        return out

    before = threads._crew.size
    threads._crew.resize(3)
    try:
        for _ in range(2):  # the same threads each time
            assert set(halves().tolist()) == {half()} != {0.0}
            with computing():
                found = halves()
            assert not found.any()  # outside: within, subnormals compare equal to 0
    finally:
        threads._crew.resize(before)


def test_machines_that_are_not_known_keep_them(monkeypatch):
    monkeypatch.setattr(environment, "_calls", [])
    monkeypatch.setattr(environment.platform, "machine", lambda: "riscv64")
    with computing():
        assert half() > 0
    assert not flushes()


def test_a_library_that_does_not_do_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(environment, "_calls", [])
    bits = {environment.platform.machine(): (7, 0x1F80)}  # exception masks only
    monkeypatch.setattr(environment, "FLUSH_BITS", bits)
    with computing():
        assert half() > 0
    assert not flushes() and half() > 0
