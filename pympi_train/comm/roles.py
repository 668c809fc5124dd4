"""Worker ranks and server ranks, each with a communicator."""

import traceback
from contextlib import contextmanager

from pympi_train.comm.checks import agreed_within, is_agreed, retold
from pympi_train.comm.watch.guard import compare_places
from pympi_train.errors import ConfigError, RemoteRankError


class Roles:
    """The first ranks as workers and the last ranks as servers.

    Parameters
    ----------
    everyone : MPI.Comm
        Must not be freed before this object.
    n_servers : int
        At least 1.

    Attributes
    ----------
    everyone : MPI.Comm
        Workers, then servers.
    comm : MPI.Comm
        The workers or the servers, whichever this rank belongs to, in the same order.
    serves : bool
        Whether this rank is a server.
    n_workers, n_servers : int

    Raises
    ------
    ConfigError
        On every rank, if no rank would be a worker.

    Notes
    -----
    Collective.
    """

    def __init__(self, everyone, n_servers):
        if everyone.size <= n_servers:
            text = (
                f"parallel: strategy server needs a rank beside its {n_servers} "
                f"server{'s' * (n_servers != 1)}, got {everyone.size} in all: start "
                f"{n_servers + 1} ranks or more"
                f"{', or lower servers' if n_servers > 1 else ''}"
            )
            raise agreed_within(everyone, ConfigError(text))
        self.everyone, self.n_servers = everyone, n_servers
        self.n_workers = everyone.size - n_servers
        self.serves = everyone.rank >= self.n_workers
        self.comm = everyone.Split(int(self.serves), key=everyone.rank)
        compare_places(everyone, False)  # workers and servers run different code

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        # ``free`` is collective: a rank that raised alone must not call it.
        if error is None or self.raised_by_all(error):
            self.free()

    def free(self):
        """Free ``comm``. Collective."""
        compare_places(self.everyone, True)
        self.comm.Free()

    @contextmanager
    def told(self):
        """Run a body on the workers; servers raise the error that all workers raise.

        The body is empty on the servers. An error that one worker raises alone is not
        forwarded, because the other ranks do not wait for it: it ends the job.

        Notes
        -----
        Collective.
        """
        error = None
        try:
            yield
        except Exception as caught:
            if not self.raised_by_all(caught):
                raise
            error = caught
        self.raise_everywhere(error)

    def raised_by_all(self, error):
        """Return whether all ranks of ``comm`` raised ``error`` together."""
        return is_agreed(error, self.comm)

    def raise_everywhere(self, error):
        """Raise the workers' ``error``, if it is not None, on workers and servers.

        Parameters
        ----------
        error : Exception or None
            None on all workers or on none of them. Always None on servers.

        Notes
        -----
        Collective.
        """
        # Not an MPI collective: servers may wait here for hours without a timeout.
        if self.serves:
            story = self.everyone.recv(source=0)
            error = None if story is None else retold(*story)
        elif self.everyone.rank == 0:
            story = None if error is None else _story(error)
            for server in range(self.n_workers, self.everyone.size):
                self.everyone.send(story, server)
        if error is not None:
            raise agreed_within(self.everyone, error)


def _story(error):
    """Return the arguments of `retold` for a worker's error."""
    if isinstance(error, RemoteRankError):
        return "", "", str(error), error.rank, error.traceback
    text = "".join(traceback.format_exception(error))
    kind = type(error).__name__
    return kind, f"rank 0: {kind}: ", str(error), 0, text
