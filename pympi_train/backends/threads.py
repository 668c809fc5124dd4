"""The number of threads of a rank, and distribution of work to them."""

import os
import sys

from pympi_train.backends.environment import handed_on

MIN_CHUNK = 262_144  # elements per thread; fewer are not worth waking a thread
CHUNK_STEP = 32_768  # chunks begin at multiples, so that no block of a sum is split


def affinity():
    """Return the set of CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def share(own_mask, masks_on_node):
    """Return the number of threads of a rank: its share of the CPUs it may run on.

    Parameters
    ----------
    own_mask : set of int
        CPUs that this rank may run on.
    masks_on_node : sequence of set of int
        The masks of all ranks on the node, including this one.

    Returns
    -------
    int
        Number of CPUs in ``own_mask`` over the number of ranks whose masks overlap it,
        at least 1. A rank bound to its own CPUs gets all of them. Ranks with the same
        mask together get at most its CPUs, unless there are more ranks than CPUs.
    """
    sharers = sum(1 for mask in masks_on_node if not own_mask.isdisjoint(mask))
    return max(1, len(own_mask) // max(1, sharers))


def limit(n):
    """Limit BLAS, Numba and this package's loops to ``n`` threads each.

    If OMP_NUM_THREADS is set, BLAS and Numba keep the numbers of threads that they took
    from the environment, and the loops use as many as BLAS.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    int
        Number of threads in use.

    Notes
    -----
    Call this after NumPy is loaded, because it limits NumPy's BLAS, and before the
    backend is chosen, because Numba reads its number of threads when it is loaded.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    if os.environ.get("OMP_NUM_THREADS"):
        blas = [a["num_threads"] for a in threadpool_info() if a["user_api"] == "blas"]
        n = max(blas, default=1)
    else:
        threadpool_limits(limits=n, user_api="blas")
        _limit_numba(n)
    _crew.resize(n)
    return n


def limit_to_one():
    """Limit BLAS and this package's loops to one thread, whatever the user has set.

    The bits of a matrix product depend on the number of threads.

    Returns
    -------
    int
        1.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")
    _limit_numba(1)
    _crew.resize(1)
    return 1


def crew_size():
    """Return the number of threads that `for_chunks` may use."""
    return _crew.size


def _limit_numba(n):
    """Limit Numba's threads, which a user's model may start; our loops use none."""
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(n))
        return
    import numba

    try:
        numba.threading_layer()
    except ValueError:
        # Not started. On every rank, set_num_threads would start a thread per CPU of
        # the node and then put all but n to sleep.
        return
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def for_chunks(function, size):
    """Call ``function(piece)`` for slices of ``size`` elements, on this rank's threads.

    Parameters
    ----------
    function : callable
        Takes a slice with explicit ends. Should release the GIL for long: ufuncs on
        blocks, which reacquire it every 10 us, gain nothing from threads.
    size : int
        Total number of elements.

    Notes
    -----
    Threads that call the same compiled loop need neither a second, parallel compilation
    nor one of Numba's threading layers: the default one must not be entered by two
    threads, and OpenMP's does not survive a fork.
    """
    if _crew.size == 1 or size < 2 * MIN_CHUNK:
        function(slice(0, size))
    else:
        _crew.run(function, thread_chunks(size, _crew.size))


def over_chunks(function, arrays, scalars):
    """Call ``function(*arrays, *scalars)`` in chunks, on this rank's threads.

    Parameters
    ----------
    function : callable
        Elementwise, so that chunks give the same bits.
    arrays : tuple of ndarray, shape (n,)
        All are split at the same places.
    scalars : tuple
        Passed unchanged.
    """
    size = arrays[0].size
    if _crew.size == 1 or size < 2 * MIN_CHUNK:
        function(*arrays, *scalars)  # small models need the microseconds
    else:
        for_chunks(
            lambda piece: function(*[array[piece] for array in arrays], *scalars), size
        )


def thread_chunks(size, n_threads):
    """Return the slices of ``size`` elements for at most ``n_threads`` threads."""
    n = max(1, min(n_threads, size // MIN_CHUNK))
    step = max(1, -(-size // (n * CHUNK_STEP))) * CHUNK_STEP
    return [slice(i, min(i + step, size)) for i in range(0, size, step)]


class _Crew:
    """The calling thread and ``size`` - 1 others, started when first needed."""

    def __init__(self):
        self.size, self._pool, self._pid = 1, None, None

    def resize(self, size):
        if size != self.size and self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self.size = size

    def run(self, function, pieces):
        """Call ``function`` on each of ``pieces``, the first one in this thread."""
        pool = self._started()
        elsewhere = handed_on(function)
        others = [pool.submit(elsewhere, piece) for piece in pieces[1:]]
        try:
            function(pieces[0])
        finally:
            for other in others:  # wait for all, even after an error
                other.exception()
        for other in others:
            other.result()

    def _started(self):
        from concurrent.futures import ThreadPoolExecutor

        if self._pool is None or self._pid != os.getpid():  # a fork copies no thread
            self._pool = ThreadPoolExecutor(self.size - 1, "pympi_train")
            self._pid = os.getpid()
        return self._pool


_crew = _Crew()
