import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from pympi_train.backends import threads

MASK = st.sets(st.integers(0, 15), min_size=1)
MASKS = st.lists(MASK, min_size=1, max_size=20)


@pytest.mark.parametrize(
    "own, others, want",
    [
        ({0, 1, 2, 3}, [], 4),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}], 2),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2, 1),
        ({0, 1}, [{2, 3}], 2),  # bound: each has its own
        ({0}, [{0}] * 7, 1),  # more ranks than CPUs
        (set(range(8)), [set(range(8))] * 2 + [{8, 9}], 2),
    ],
)
def test_share(own, others, want):
    assert threads.share(own, [own, *others]) == want


@given(masks=MASKS)
def test_share_is_between_one_and_the_mask(masks):
    for own in masks:
        assert 1 <= threads.share(own, masks) <= len(own)


@given(mask=MASK, n_ranks=st.integers(1, 40))
def test_ranks_of_one_mask_do_not_crowd_it(mask, n_ranks):
    each = threads.share(mask, [mask] * n_ranks)
    assert each * n_ranks <= max(len(mask), n_ranks)
    assert (each + 1) * n_ranks > len(mask)


@given(masks=MASKS, seed=st.randoms())
def test_share_does_not_know_the_order(masks, seed):
    shuffled = list(masks)
    seed.shuffle(shuffled)
    own = masks[0]
    assert threads.share(own, masks) == threads.share(own, shuffled)


def test_affinity_where_there_is_no_such_call(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads.affinity() == set(range(6))
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.affinity() == {0}


@pytest.fixture
def restored(crew_of, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_limit_numba", lambda n: None)  # it would last
    crew_of(1)
    with threadpool_limits():
        yield


def blas_threads():
    return {a["num_threads"] for a in threadpool_info() if a["user_api"] == "blas"}


def test_limit(restored):
    assert threads.limit(1) == 1
    assert blas_threads() <= {1}
    assert threads.limit(2) == 2
    assert blas_threads() <= {2}
    assert threads._crew.size == 2


NUMBA_AFTER = """
import numpy
from pympi_train.backends import threads
threads.limit(3)
import numba
assert numba.get_num_threads() == 3, numba.get_num_threads()
threads.limit(2)  # its threads are started by now
assert numba.get_num_threads() == 2, numba.get_num_threads()
threads.limit(99)  # no more than it has
assert numba.get_num_threads() == 3, numba.get_num_threads()
"""


def test_limit_reaches_numba():
    pytest.importorskip("numba")
    chosen = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    kept = {k: v for k, v in os.environ.items() if k not in chosen}
    subprocess.run(
        [sys.executable, "-c", NUMBA_AFTER],
        env=kept,
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=60,
    )


def test_limit_leaves_all_alone_where_the_user_chose(restored, monkeypatch):
    threadpool_limits(limits=1, user_api="blas")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.limit(7) == 1
    assert blas_threads() <= {1}
    assert threads._crew.size == 1


@given(size=st.integers(0, 5_000_000), n_threads=st.integers(1, 9))
def test_chunks_cut_all_once(size, n_threads):
    pieces = threads.thread_chunks(size, n_threads)
    covered = [i for piece in pieces for i in (piece.start, piece.stop)]
    assert covered[:1] + covered[-1:] == ([0, size] if size else [])
    assert covered[1:-1:2] == covered[2:-1:2]
    assert len(pieces) <= n_threads
    assert all(piece.start % threads.CHUNK_STEP == 0 for piece in pieces)


def test_chunks_run_on_several_threads(crew_of):
    crew_of(3)
    meeting, names = threading.Barrier(3, timeout=10), set()

    def work(piece):
        meeting.wait()  # breaks unless three threads arrive
        names.add(threading.current_thread().name)

    threads.for_chunks(work, 3_000_000)
    assert len(names) == 3


def test_small_work_stays_in_the_calling_thread(crew_of):
    crew_of(3)
    names = []
    threads.for_chunks(
        lambda piece: names.append(threading.current_thread()), threads.MIN_CHUNK
    )
    assert names == [threading.current_thread()]


def test_an_error_in_a_chunk_comes_out(crew_of):
    crew_of(3)

    def work(piece):
        if piece.start:
            raise ValueError("in another thread")

    with pytest.raises(ValueError, match="in another thread"):
        threads.for_chunks(work, 3_000_000)


def test_over_chunks_sees_every_element(crew_of):
    crew_of(2)
    a, b = np.zeros(1_000_003), np.arange(1_000_003.0)
    threads.over_chunks(lambda x, y, c: np.add(y, c, out=x), (a, b), (1.0,))
    assert np.array_equal(a, b + 1)


def test_one_thread_whatever_the_user_has_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    before = threads._crew.size
    with threadpool_limits(2, user_api="blas"):
        assert threads.limit_to_one() == 1 == threads._crew.size
        blas = [a["num_threads"] for a in threadpool_info() if a["user_api"] == "blas"]
        assert set(blas) == {1}
    threads._crew.resize(before)
