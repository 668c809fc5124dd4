"""The ranks of one job: their communicator, their node, and what a failure does."""

import hashlib
import math
from numbers import Real

from pympi_train.backends import threads
from pympi_train.comm import mesh
from pympi_train.comm.checks import is_agreed, members, require_all_equal, together
from pympi_train.comm.watch import abort
from pympi_train.comm.watch.guard import guarded
from pympi_train.errors import ConfigError

TIMEOUT_S = 600.0


class Ranks:
    """The ranks of one job, and what they share while it lasts.

    One job of many may fail, wait or diverge while the others go on: errors are agreed
    among the ranks of their job, and a watchdog looks at nobody else. Make one for a
    communicator of your own and hand it to all that works together::

        with pt.Ranks(half) as ranks:
            data = pt.Dataset.split(x, y, comm=ranks)
            with pt.Trainer(model, optimizer, comm=ranks) as trainer:
                trainer.fit(data, epochs=10)

    Parameters
    ----------
    comm : MPI.Comm or Ranks, optional
        Duplicated; COMM_WORLD by default.
    timeout_s : float, default 600
        A rank that waits longer for another one ends the program and names it; 0:
        never.
    debug : bool, default False
        The ranks agree on each collective before they enter it.

    Attributes
    ----------
    comm : MPI.Intracomm
        The duplicate. Its collectives are watched.
    rank, size : int
    timeout_s, debug
        As given.
    key : bytes
        The same for the same ranks in the same order, and for no others.
    n_threads : int
        This rank's share of the node's CPUs, which it has with all processes of the
        program on that node, whatever job they belong to.
    n_on_node, n_cpus : int
        These processes, and the CPUs that they may run on.

    Raises
    ------
    ConfigError
        On every rank, if ``timeout_s`` is no number of seconds: 0, or at least 1.
    RankMismatchError
        On every rank, if they give other arguments.
    RuntimeError
        If ``comm`` was freed.

    Notes
    -----
    Collective, and so is ``free``: a context manager frees at its end, unless a rank
    raised alone.

    An exception that reaches the top of a rank ends the whole program: catch it where
    other jobs shall go on. A rank that leaves otherwise, by the end of its program or
    ``sys.exit``, ends the program once another one waits for it in a call of ``comm``.
    """

    def __init__(self, comm=None, *, timeout_s=TIMEOUT_S, debug=False):
        base = mesh.world() if comm is None else _alive(comm)
        abort.install()
        self.timeout_s, self.debug = timeout_s, debug
        self.comm = base.Dup()
        try:
            with together(self.comm):
                _require_sense(timeout_s, debug)
            found = {"timeout_s": timeout_s, "debug": debug}
            require_all_equal(self.comm, found, hint="Make the same Ranks on each.")
            self.comm = guarded(self.comm, timeout_s, debug)
            self.rank, self.size = self.comm.rank, self.comm.size
            self.key = key_of(self.comm)
            own, masks = mesh.share_of_node(self.comm)
            self.n_threads = threads.share(own, masks)
            self.n_on_node, self.n_cpus = len(masks), len(set().union(*masks))
        except Exception as error:
            if is_agreed(error, self.comm):
                self.comm.Free()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # A rank that raised alone must not wait for the others here.
        if error is None or is_agreed(error, self.comm):
            self.free()

    def __bool__(self):
        return bool(self.comm)  # a communicator that was freed counts as false

    def free(self):
        """Free the communicator and all that watches it; further calls do nothing."""
        if self:
            self.comm.Free()

    def use_threads(self):
        """Limit this process to its share of threads; return how many it has.

        To be called before a backend is loaded: Numba reads its number of threads then.
        """
        return threads.limit(self.n_threads)


def _alive(comm):
    """Return the communicator that ``comm``, MPI's or a Ranks, stands for."""
    from mpi4py import MPI

    if isinstance(comm, Ranks):
        comm = comm.comm
    if not isinstance(comm, MPI.Comm):
        raise TypeError(f"comm: expected Ranks or a communicator, got {comm!r}")
    if not comm:
        raise RuntimeError("these ranks, or their communicator, were freed")
    return comm


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
    """Return bytes that are the same for the same ranks in the same order alone.

    Of a guarded communicator they are kept: at 100,000 ranks they take 20 ms.
    """
    key = getattr(comm, "key", None)
    if key is None:
        ranks = ",".join(map(str, members(comm)))
        key = hashlib.blake2b(ranks.encode(), digest_size=16).digest()
        if hasattr(comm, "key"):
            comm.key = key
    return key


_default: list = []  # the Ranks of the world, once somebody needs them


def default():
    """Return the Ranks of the world, made at the first call. Collective then."""
    if not _default:
        _default.append(Ranks())
    return _default[0]


def resolve(comm):
    """Return the communicator that ``comm``, MPI's, a Ranks or None, stands for.

    Notes
    -----
    Collective at the first call with None, which stands for the world.
    From now on an exception that reaches the top of one rank ends the program.
    """
    if comm is None:
        return default().comm
    if not isinstance(comm, Ranks):
        abort.install()
    return _alive(comm)


def ranks_of(comm, timeout_s=TIMEOUT_S, debug=False):
    """Return (the Ranks that ``comm`` stands for, whether the caller has to free them).

    Parameters
    ----------
    comm : Ranks, MPI.Comm or None
        MPI's is wrapped in Ranks of its own. None stands for those of the world.
    timeout_s, debug
        Of Ranks that are made.

    Notes
    -----
    Collective.
    """
    if isinstance(comm, Ranks):
        _alive(comm)
        return comm, False
    if comm is None and (timeout_s, debug) == (TIMEOUT_S, False):
        return default(), False
    return Ranks(comm, timeout_s=timeout_s, debug=debug), True
