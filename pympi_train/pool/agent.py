"""What every rank of a pool does: wait for a job, train, wait for the next one."""

import sys
import threading
import time
import traceback
from contextlib import contextmanager
from functools import partial

from pympi_train.comm.messages import bytes_of_root
from pympi_train.comm.ranks import serving
from pympi_train.comm.watch.abort import all_leave
from pympi_train.comm.watch.guard import abandon
from pympi_train.comm.watch.neighbours import Neighbours
from pympi_train.config import config as configuration
from pympi_train.errors import RemoteRankError, UserError
from pympi_train.pool.group import JobGroup, JobOrders, group_of
from pympi_train.pool.history import FAILED, FINISHED, INTERRUPTED
from pympi_train.pool.mail import ORDERS, Mail, spanned, spans
from pympi_train.runs import job as training
from pympi_train.runs.elastic.course import Course
from pympi_train.runs.output import finite
from pympi_train.runs.prepare import ranks_of_job
from pympi_train.runs.recovery.attempt import Attempt
from pympi_train.runs.recovery.signals import Stop

BRIEF_S, LONGEST_S = 0.001, 0.02  # between two looks for an order
WATCHED = "a rank waits in vain for others: see what its watchdog has printed"
BEHIND_S = 0.02  # between two looks of the thread for reports


class Agent:
    """A rank of a pool. Making it is collective.

    Parameters
    ----------
    comm : MPI.Intracomm
        Of the pool.
    stop : Stop
        What signals have asked this rank for.
    coordinator : Coordinator, optional
        On rank 0.

    Attributes
    ----------
    has_lost : bool
        Whether ranks are missing that hang in a job.
    """

    def __init__(self, comm, stop, coordinator=None):
        self._comm, self._stop, self._coordinator = comm, stop, coordinator
        self._neighbours = Neighbours(comm)
        self._mail, self._has_told, self.has_lost = Mail(comm, ORDERS), False, False

    def serve(self, until=lambda: False):
        """Follow orders until the pool ends, or ``until()`` is true."""
        with serving():
            self._serve(until)

    def _serve(self, until):
        pause_s, coordinator = BRIEF_S, self._coordinator
        if coordinator is not None:
            coordinator.arrive()
        while True:
            self._coordinate()
            self._tell_of_ended()
            if until() and coordinator.depart():
                return
            order = self._mail.receive()
            if order is None:
                self._tell_of_signal()
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_S)
                continue
            pause_s = BRIEF_S
            if order["kind"] == "leave":
                self.has_lost = order["has_lost"]
                self._mail.finish()
                return
            if order["kind"] in ("start", "join"):
                self._take_part(order)

    def _coordinate(self):
        if self._coordinator is not None:
            self._coordinator.poll()

    def _tell_of_ended(self):
        """Tell the coordinator of ranks of this node whose process has ended."""
        for rank in self._neighbours.ended():
            self._mail.report(kind="ended", rank=rank)

    def _between_steps(self):
        """Do what no thread does while this rank trains."""
        self._tell_of_ended()
        if not _has_threads():
            self._coordinate()

    def _tell_of_signal(self):
        """Tell the coordinator once of a signal."""
        if self._stop.signal and not self._has_told:
            self._has_told = True
            self._mail.report(kind="signal", signal=self._stop.signal)

    def _take_part(self, order):
        """Take part in a job until it is over, or this rank has left it."""
        job = order["job"]
        make_group = partial(self._make_group, job)
        comm = make_group(spanned(order["ranks"]), order["tag"])
        is_root, group, course = comm.rank == 0, None, None
        text = bytes_of_root(comm, order.get("text", "").encode())
        try:
            config = configuration.parse(
                text.decode(), where=job["name"], literal_paths=True
            )
            made_of = self._mail, job, is_root, config.train.epochs
            orders = JobOrders(*made_of, self._between_steps, make_group)
            group = self._group(comm, order["n_active"], config, orders, text)
            course = Course(config, group, None, order.get("resume"))
            with group, course:
                course.stop, course.attempt = group.stop, Attempt()
                told = _told_of(training.complete(course))
        except Exception as error:
            told = {"status": FAILED, "error": _sentence(error)}
            told["cause"] = type(error).__name__
            if not _is_over(comm, group, error):
                self._mail.report(kind="alone", job=job, **told)
                return
        if is_root:
            told["training_s"] = 0.0 if course is None else course.training_s
            self._mail.report(kind="end", job=job, **told)

    def _make_group(self, job, ranks, tag):
        on_late = partial(self._hang, job) if _has_threads() else None
        return group_of(self._comm, ranks, tag, on_late)

    def _hang(self, job, error):
        """Report from another thread that this rank will not come back from a job."""
        mail = Mail(self._comm, ORDERS)
        mail.report(kind="stuck", job=job, error=error)
        mail.finish()

    def _group(self, comm, n_active, config, orders, text):
        """Return the `JobGroup` of a job. Collective."""
        job = orders.job

        def hang(late):
            self._hang(job, WATCHED)
            return True

        def make_ranks(of):
            return ranks_of_job(config, of, hang if _has_threads() else None)

        def invite(ranks, n_active, tag):
            told = {"ranks": spans(ranks), "n_active": n_active, "tag": tag}
            for rank in ranks[n_active:]:
                self._mail.order(rank, kind="join", job=job, **told)

        made_of = JobStop(self._stop), make_ranks, orders, invite, text
        return JobGroup(comm, n_active, *made_of)


@contextmanager
def coordinating(coordinator):
    """Let a thread do the coordinator's work in the body too, where MPI allows it.

    Rank 0 is then heard within BEHIND_S while it reads data or evaluates; without
    threads, at its next step.
    """
    if not _has_threads():
        yield
        return
    over = threading.Event()

    def look():
        while not over.wait(BEHIND_S):
            coordinator.poll()
            if 0 in coordinator.lost and coordinator.is_idle:
                coordinator.end_program()

    thread = threading.Thread(target=look, name="pympi_train pool", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class JobStop(Stop):
    """What asks one job for an end: signals to this rank, or the coordinator."""

    def __init__(self, whole):
        self._whole, self._own = whole, 0

    @property
    def signal(self):
        """Number of the signal; 0 for none."""
        return self._whole.signal or self._own

    @signal.setter
    def signal(self, number):
        self._own = number

    def during(self, request):
        """Within the body, a signal asks for a stop, also one that came before."""
        return self._whole.during(request)


def _is_over(comm, group, error):
    """Return whether all ranks of a job have left it with an error."""
    if group is not None and group.is_everyones(error):
        return True
    if all_leave(comm if group is None else group.comm):
        if group is not None:
            group.free()  # each has found an error independently
        return True
    if group is not None:
        abandon(group.everyone.comm)
    return False


def _has_threads():
    from mpi4py import MPI

    return MPI.Query_thread() == MPI.THREAD_MULTIPLE


def _told_of(result):
    """Return what the coordinator is told of a training that raised nothing."""
    if result is None:  # this rank has left it
        return {}
    if "interrupted" in result:
        return {"status": INTERRUPTED, "error": result["interrupted"]}
    return {"status": FINISHED, "result": finite(result)}


def _sentence(error):
    """Return an error in a sentence; print the traceback of one that is a defect."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, RemoteRankError):
        sys.stderr.write(error.traceback)
        return str(error)
    sys.stderr.write("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {error}"
