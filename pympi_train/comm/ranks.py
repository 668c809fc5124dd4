"""The ranks of one job: their communicator, their node, and their failures."""

import hashlib
import math
from contextlib import contextmanager
from numbers import Real

from pympi_train.backends import threads
from pympi_train.comm import mesh
from pympi_train.comm.checks import is_agreed, members, require_all_equal, together
from pympi_train.comm.watch import abort
from pympi_train.comm.watch.guard import abandon, guarded
from pympi_train.comm.watch.survivors import is_survived
from pympi_train.errors import ConfigError

TIMEOUT_S = 600.0


class Ranks:
    """The ranks of one job, with their communicator and watchdog.

    If a program runs several jobs, one job may fail, wait or diverge while the other
    jobs continue: errors are agreed among the ranks of a job, and its watchdog checks
    only these ranks. Make one Ranks from your communicator, and pass it to all objects
    of the job::

        with pt.Ranks(half) as ranks:
            data = pt.Dataset.split(x, y, comm=ranks)
            with pt.Trainer(model, optimizer, comm=ranks) as trainer:
                trainer.fit(data, epochs=10)

    Parameters
    ----------
    comm : MPI.Comm or Ranks, optional
        Duplicated; COMM_WORLD by default.
    timeout_s : float, default 600
        Maximum time in seconds that a rank waits for another rank. After it, the
        waiting rank reports the late rank and ends the program. 0: no limit.
    debug : bool, default False
        The ranks compare each collective before they call it.
    outlives : bool, default False
        Experimental: after an error of MPI on one rank, MPI calls raise on all ranks;
        see ``comm.watch.survivors.outlive``.
    on_hang : callable, optional
        Called by the watchdog's thread instead of ending the program, with the late
        processes of the node, [(pid, start), ...]. Must return True.

    Attributes
    ----------
    comm : MPI.Intracomm
        The duplicate. The watchdog observes its collectives.
    rank, size : int
    timeout_s, debug
        As given.
    key : bytes
        Identifies the set of ranks and their order.
    n_threads : int
        This rank's share of the node's CPUs. The CPUs are divided among all processes
        of the program on the node, in any job.
    n_on_node, n_cpus : int
        Number of these processes, and of the CPUs that they may use.

    Raises
    ------
    ConfigError
        On every rank, if ``timeout_s`` is neither 0 nor a finite number of at least 1.
    RankMismatchError
        On every rank, if the arguments differ between ranks.
    RuntimeError
        If ``comm`` was freed.

    Notes
    -----
    Collective; ``free`` is too. A context manager calls ``free`` at its end, unless a
    rank raised alone.

    An uncaught exception on a rank ends the whole program. Catch it if other jobs
    should continue. If a rank ends without an exception (end of its program or
    ``sys.exit``), the program ends as soon as another rank waits for it in a call of
    ``comm``.
    """

    def __init__(
        self,
        comm=None,
        *,
        timeout_s=TIMEOUT_S,
        debug=False,
        outlives=False,
        on_hang=None,
    ):
        base = _usable(mesh.world() if comm is None else comm)
        abort.install()
        self.timeout_s, self.debug = timeout_s, debug
        self.comm = base.Dup()
        try:
            with together(self.comm):
                _require_sense(timeout_s, debug)
            found = {"timeout_s": timeout_s, "debug": debug}
            require_all_equal(self.comm, found, hint="Make the same Ranks on each.")
            self.comm = guarded(self.comm, timeout_s, debug, outlives, on_hang)
            self.rank, self.size = self.comm.rank, self.comm.size
            self.key = key_of(self.comm)
            own, masks = mesh.share_of_node(self.comm)
            self.n_threads = threads.share(own, masks)
            self.n_on_node, self.n_cpus = len(masks), len(set().union(*masks))
        except Exception as error:
            if is_agreed(error, self.comm):
                self.comm.Free()
            elif is_survived(self.comm, error):
                abandon(self.comm)
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # ``free`` is collective: a rank that raised alone must not call it.
        if error is None or is_agreed(error, self.comm):
            self.free()
        elif is_survived(self.comm, error):
            abandon(self.comm)

    def __bool__(self):
        return bool(self.comm)  # a freed communicator is false

    def free(self):
        """Free the communicator and its watchdog; further calls do nothing."""
        if self:
            self.comm.Free()

    def use_threads(self):
        """Limit this process to its share of threads; return their number.

        Call this before a backend is loaded, because Numba reads its number of threads
        when it is loaded.
        """
        return threads.limit(self.n_threads)


def _usable(comm):
    """Return the communicator of ``comm``, a Ranks or an MPI communicator.

    Raises
    ------
    ConfigError
        As `require_reachable`.
    RuntimeError
        If it was freed.
    """
    from mpi4py import MPI

    if isinstance(comm, Ranks):
        comm = comm.comm
    if not isinstance(comm, MPI.Comm):
        raise TypeError(f"comm: expected Ranks or a communicator, got {comm!r}")
    if not comm:
        raise RuntimeError("these ranks, or their communicator, were freed")
    require_reachable(comm)
    return comm


_absent: list = []  # sets of world ranks that serve a pool in whose body this rank is


@contextmanager
def served_by(comm):
    """Let `require_reachable` refuse the other ranks of ``comm`` within the body.

    They follow the orders of a pool, and would not come to another collective.
    """
    others = frozenset(members(comm)) - {mesh.world().rank}
    _absent.append(others)
    try:
        yield
    finally:
        _absent.remove(others)


@contextmanager
def serving():
    """Let this rank make groups with all others within the body: it serves, too."""
    before = _absent[:]
    _absent.clear()
    try:
        yield
    finally:
        _absent[:] = before


def require_reachable(comm):
    """Raise ConfigError if a rank of ``comm`` serves a pool in whose body this one is.

    Not collective: only this rank can be in the body.
    """
    if _absent and not frozenset(members(comm)).isdisjoint(frozenset().union(*_absent)):
        raise ConfigError(
            "this rank is in the body of a pool, whose other ranks train its jobs and "
            "would never come to a collective call: make the call before or after the "
            "pool, or with comm = MPI.COMM_SELF"
        )


def _require_sense(timeout_s, debug):
    is_number = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool)
    if not is_number or not (timeout_s == 0 or 1 <= timeout_s < math.inf):
        raise ConfigError(
            f"timeout_s: expected seconds, at least 1, or 0 for never; got "
            f"{timeout_s!r}"
        )
    if not isinstance(debug, bool):
        raise ConfigError(f"debug: expected True or False, got {debug!r}")


def key_of(comm):
    """Return bytes that identify the ranks of ``comm`` and their order.

    A guarded communicator caches them, since computing them for 100,000 ranks takes
    20 ms.
    """
    key = getattr(comm, "key", None)
    if key is None:
        ranks = ",".join(map(str, members(comm)))
        key = hashlib.blake2b(ranks.encode(), digest_size=16).digest()
        if hasattr(comm, "key"):
            comm.key = key
    return key


_default: list = []  # the Ranks of the world, after the first call of `default`


def default():
    """Return the Ranks of the world. The first call creates them and is collective."""
    if not _default:
        _default.append(Ranks())
    _usable(_default[0])
    return _default[0]


def resolve(comm):
    """Return the communicator of ``comm``: a Ranks, MPI communicator, or None (world).

    Notes
    -----
    Collective at the first call with None.
    After this call, an uncaught exception on one rank ends the program.
    """
    if comm is None:
        return default().comm
    if not isinstance(comm, Ranks):
        abort.install()
    return _usable(comm)


def ranks_of(comm, timeout_s=TIMEOUT_S, debug=False):
    """Return (the Ranks of ``comm``, whether the caller has to free them).

    Parameters
    ----------
    comm : Ranks, MPI.Comm or None
        New Ranks are made for an MPI communicator. None means the Ranks of the world.
    timeout_s, debug
        Arguments for Ranks that are made.

    Notes
    -----
    Collective.
    """
    if isinstance(comm, Ranks):
        _usable(comm)
        return comm, False
    if comm is None and (timeout_s, debug) == (TIMEOUT_S, False):
        return default(), False
    return Ranks(comm, timeout_s=timeout_s, debug=debug), True
