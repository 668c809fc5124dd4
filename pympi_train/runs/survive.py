"""A training that goes on with the ranks that are left when some die."""

from pympi_train.comm.collectives import reduced
from pympi_train.comm.watch.survivors import dead_ranks, outlive
from pympi_train.runs import job
from pympi_train.runs.recovery.attempt import Attempt, resume_point
from pympi_train.runs.recovery.resume import NEWEST
from pympi_train.runs.recovery.signals import orderly


def train_with_survivors(config, comm, make_console, resume=None, stop=None):
    """Train as `job.train`, and again with the ranks that are left whenever some die.

    Parameters
    ----------
    config : Config
        With ``[elastic] survive``.
    comm : MPI.Comm
        All ranks of the program. Call `survivors.require_ulfm` first.
    make_console : callable
        ``make_console(comm)`` returns the Console on rank 0 of ``comm``, else None.
    resume, stop
        As for `job.train`.

    Returns
    -------
    dict
        As `job.train`, on the ranks that are left.

    Notes
    -----
    Collective.
    """
    if stop is None:
        with orderly() as stop:
            return train_with_survivors(config, comm, make_console, resume, stop)
    attempt = None

    def work(ranks):
        nonlocal attempt
        console, how = make_console(ranks), resume
        if attempt is not None:
            attempt.abandon()
            if console is not None:
                console.tell_dead(dead_ranks(comm, ranks), comm.size)
            how = _resumed(attempt, ranks, resume)
        attempt = Attempt(attempt)
        return job.train(config, ranks, console, how, stop, attempt)

    return outlive(comm, work, config.parallel.timeout_s)


def _resumed(attempt, ranks, resume):
    """Return from where the ranks go on, as `job.train` takes it. Collective.

    Before the run directory was this run's, checkpoints in it are an earlier run's.
    """
    found = resume_point(attempt, ranks)
    if found is not None:
        return found
    begun = [attempt.has_begun, attempt.has_saved]
    has_begun, has_saved = reduced(ranks, begun, op="MAX")
    if has_saved or (has_begun and resume is None):
        return NEWEST
    return resume
