"""How many threads a rank may use, and work handed to them."""

import os
import sys

from pympi_train.backends.environment import handed_on

MIN_CHUNK = 262_144  # elements a thread; fewer take less time than waking it does
CHUNK_STEP = 32_768  # chunks begin at multiples; so sums over blocks of it are whole


def affinity():
    """Return the set of CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def share(own_mask, masks_on_node):
    """Return the number of threads for a rank: its part of the CPUs it shares.

    Parameters
    ----------
    own_mask : set of int
        CPUs this rank may run on.
    masks_on_node : sequence of set of int
        The same of every rank on the node, this one included.

    Returns
    -------
    int
        CPUs of ``own_mask`` over the ranks whose masks overlap it, at least 1.
        Ranks bound to CPUs of their own get all of them; ranks with one mask
        together never get more than it holds, unless they are more than its CPUs.
    """
    sharers = sum(1 for mask in masks_on_node if not own_mask.isdisjoint(mask))
    return max(1, len(own_mask) // max(1, sharers))


def limit(n):
    """Let BLAS, Numba and this package's loops use ``n`` threads each.

    Where the user has set OMP_NUM_THREADS, BLAS and Numba keep what they took from
    the environment, and the loops follow BLAS.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    int
        Threads in force.

    Notes
    -----
    Call it after NumPy is loaded, whose BLAS it limits, and before the backend is
    chosen: Numba takes its number of threads when it is loaded.
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
    """Let BLAS and this package's loops use one thread, whatever the user has set.

    A product of matrices has other bits on two threads than on one.

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


def _limit_numba(n):
    """Limit what a user's own model may start; the loops here do not use it."""
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(n))
        return
    import numba

    try:
        numba.threading_layer()
    except ValueError:
        # Not started. set_num_threads would start a thread for each CPU of the
        # node before it puts all but n to sleep, in every rank.
        return
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def for_chunks(function, size):
    """Call ``function(piece)`` for slices that cut ``size``, by this rank's threads.

    Parameters
    ----------
    function : callable
        Takes a slice whose ends are known. Releases the GIL once and for long:
        ufuncs on blocks, which take it back every 10 us, gain nothing from threads.
    size : int
        Elements in all.

    Notes
    -----
    Threads that call the same compiled loop need no second, parallel compilation
    of it, and no threading layer of Numba's: its default one may not be entered
    from two threads, and OpenMP's does not survive a fork.
    """
    if _crew.size == 1 or size < 2 * MIN_CHUNK:
        function(slice(0, size))
    else:
        _crew.run(function, thread_chunks(size, _crew.size))


def over_chunks(function, arrays, scalars):
    """Call ``function(*arrays, *scalars)`` in chunks, by this rank's threads.

    Parameters
    ----------
    function : callable
        Elementwise, so that chunks give the same bits.
    arrays : tuple of ndarray, shape (n,)
        All are cut at the same places.
    scalars : tuple
        Handed on as they are.
    """
    size = arrays[0].size
    if _crew.size == 1 or size < 2 * MIN_CHUNK:
        function(*arrays, *scalars)  # small models count microseconds
    else:
        for_chunks(
            lambda piece: function(*[array[piece] for array in arrays], *scalars), size
        )


def thread_chunks(size, n_threads):
    """Return the slices that cut ``size`` elements for at most ``n_threads``."""
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
            for other in others:  # all are done before the caller goes on
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
