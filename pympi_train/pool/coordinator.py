"""Decides on rank 0 which ranks work for which job, and hears how jobs go."""

import signal
import sys
import threading
import time

from pympi_train.comm.watch.abort import end_with_output
from pympi_train.errors import ConfigError, DataError
from pympi_train.pool.entry import STUCK
from pympi_train.pool.events import write_progress
from pympi_train.pool.history import (
    CANCELLED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    SKIPPED,
    WAITING,
)
from pympi_train.pool.mail import REPORTS, Mail, spans
from pympi_train.pool.room import Room, require_room
from pympi_train.pool.schedule import plan

TOLD_S = 1.0  # between two accounts of the progress of jobs
MOST_TAGS = 30_000  # MPI promises 32,767


class Coordinator:
    """Starts jobs, moves ranks between them, and takes note of how they end.

    Parameters
    ----------
    comm : MPI.Intracomm
        Of the pool.
    machine : Machine
    log : EventLog
        Is told what happens.

    Attributes
    ----------
    jobs : dict of str to PoolJob
    failure : Exception or None
        Why the pool had to stop.
    spent_s : float
        Seconds of CPU that this object has worked.
    lost : set of int
        Ranks that hang in jobs that were given up, or whose process has ended.

    Notes
    -----
    `poll` may be called by two threads of rank 0, and does nothing while the other one
    is at work.
    """

    def __init__(self, comm, machine, log):
        self._mail, self._machine = Mail(comm, REPORTS), machine
        self._log = log
        self.jobs, self.failure, self.spent_s = {}, None, 0.0
        self.free, self.lost = set(range(1, machine.n_ranks)), set()
        self.signal = 0
        self._tag, self._told_s, self._has_news = 0, 0.0, True
        self._is_here = False  # rank 0 may be busy elsewhere
        self._lock = threading.RLock()

    def arrive(self):
        """Note that rank 0 follows orders from now on."""
        with self._lock:
            if not self._is_here:
                self.free.add(0)
            self._is_here = self._has_news = True

    def depart(self):
        """Return whether rank 0 may stop to follow orders: it has no job."""
        with self._lock:
            if 0 not in self.free:
                return False
            self.free.remove(0)
            self._is_here = False
            return True

    def add(self, job):
        """Take a job; raise ConfigError if it can never run here."""
        if job.name in self.jobs:
            raise ConfigError(f"job {job.name}: there is another one of this name")
        require_room(self._machine, job.needs, job.name)
        with self._lock:
            self.jobs[job.name] = job
            if job.is_over:  # in an earlier session of the pool
                return
            needs, told = job.needs, {"directory": job.directory, "after": job.after}
            told |= {"digest": job.digest, "priority": needs.priority}
            bounds = {"min_ranks": needs.least, "max_ranks": needs.most}
            self._note("submit", job, **told, **bounds)
            self._has_news = True
            for name in job.after:  # it may be over already
                self._skip_without(self.jobs[name], [job])

    def cancel(self, name):
        """End a job, with a checkpoint if it runs; return whether it was not over."""
        with self._lock:
            job = self.jobs[name]
            job.is_cancelled = True
            if job.status == WAITING:
                self._close(job, CANCELLED)
            elif job.status == RUNNING:
                self._stop(job, signal.SIGTERM)
            return not job.is_over or job.status == CANCELLED

    def stop(self, number):
        """Start no more jobs, and end those that run with a checkpoint."""
        with self._lock:
            if self.signal:
                return
            self.signal = number
            for job in self._running():
                self._stop(job, number)

    def _stop(self, job, number):
        self._mail.order(job.running.ranks[0], kind="stop", job=job.key, signal=number)

    def _running(self):
        return [job for job in self.jobs.values() if job.status == RUNNING]

    @property
    def is_idle(self):
        """Whether nothing runs, and nothing is to start."""
        with self._lock:
            if self._running():
                return False
            return self.signal > 0 or all(job.is_over for job in self.jobs.values())

    def poll(self):
        """Hear reports, and give orders; takes microseconds if there is nothing new."""
        if not self._lock.acquire(blocking=False):
            return
        began_s = time.thread_time()
        try:
            self._work()
        finally:
            self.spent_s += time.thread_time() - began_s
            self._lock.release()

    def _work(self):
        while (report := self._mail.receive()) is not None:
            self._hear(report)
        if self._has_news and not self.signal:
            self._has_news = False
            self._schedule()
        now_s = time.monotonic()
        if now_s - self._told_s >= TOLD_S:
            self._told_s = now_s
            jobs = {job.name: job.progress for job in self._running() if job.progress}
            write_progress(self._log.directory, jobs)

    def _hear(self, report):
        """Take note of a message."""
        kind, key = report["kind"], report.get("job")
        if kind == "signal":
            self.stop(report["signal"])
            return
        if kind == "ended":
            self._lose(report["rank"])
            return
        job = self.jobs[key["name"]]
        if job.key != key or job.status not in (RUNNING, STUCK):
            return
        if kind == "progress":
            job.advance(report)
            self._has_news = self._has_news or bool(self.free)
        elif kind == "running":
            self._hear_running(job, report["n_ranks"])
        elif kind in ("alone", "stuck"):
            self._give_up(job, report)
        elif kind == "end":
            self._hear_end(job, report)

    def _hear_running(self, job, n_ranks):
        """A job has begun, or has changed its ranks."""
        running = job.running
        if not running.has_begun:
            running.has_begun = True
            self._note("begin", job)
            return  # a change that was ordered meanwhile has its own report
        if not running.is_changing:
            return
        self.free.update(job.settle(n_ranks))
        self._has_news = True
        self._note("resize", job, ranks=running.ranks)

    def _hear_end(self, job, report):
        if job.status == STUCK:  # it was late, but has come after all
            self.lost -= set(job.running.ranks)
        self.free.update(job.running.ranks)
        self._close(job, report["status"], report)
        if job.status == INTERRUPTED:  # by a signal to one of its ranks, or by time
            self.stop(signal.SIGTERM)

    def _lose(self, rank):
        """Take note of a rank whose process has ended, although the program goes on.

        If it trains with others, the watchdog of one of them reports that.
        """
        if rank in self.free:
            self.free.remove(rank)
            self.lost.add(rank)
            self._has_news = True
        for job in self._running():
            if job.running.ranks == [rank]:
                error = f"the process of rank {rank} of the pool has ended"
                self._give_up(job, {"kind": "stuck", "error": error})

    def _give_up(self, job, report):
        """Give up a job of which a rank has failed alone, or hangs.

        The rank that has failed can work again; those that wait for it cannot.
        """
        has_failed = report["kind"] == "alone"
        if job.status == STUCK and not has_failed:
            return
        if job.status == RUNNING:
            self.lost |= set(job.running.ranks)
        if has_failed:
            self.lost.discard(report["from"])
            self.free.add(report["from"])
        job.retries = 0  # its run directory is still locked
        self._close(job, FAILED, report)
        job.status = STUCK

    def _close(self, job, status, report=None):
        """Take note of the end of a job, and of those that cannot begin without it."""
        told = job.end(status, report or {})
        self._note("end", job, status=job.status, **told)
        self._has_news = True
        if job.status == FAILED and job.try_again():
            return
        others = [other for other in self.jobs.values() if job.name in other.after]
        self._skip_without(job, others)

    def _skip_without(self, job, others):
        """Skip others that wait for a job, if it is over and has not finished."""
        status = FAILED if job.status == STUCK else job.status
        if status not in (FAILED, CANCELLED, SKIPPED):
            return
        has = "has" if status == FAILED else "was"
        why = f"job {job.name}, which it needs, {has} {status}"
        for other in others:
            if other.status == WAITING:
                self._close(other, SKIPPED, {"error": why})

    def _schedule(self):
        ready = {
            job.name: job.needs
            for job in self.jobs.values()
            if job.status == WAITING and self._may_begin(job)
        }
        running = {job.name: job.running for job in self._running()}
        starting, changing = plan(self._machine, self.free, ready, running)
        if self.lost and self._is_here and ready and not (starting or running):
            why = f"too few ranks are left: {len(self.lost)} hang or have ended"
            room = Room(self._machine, self.free)
            for name, needs in ready.items():
                if room.choose(needs, needs.least) is None:  # others start next
                    self._close(self.jobs[name], FAILED, {"error": why})
        for name, ranks in starting.items():
            self._start(self.jobs[name], ranks)
        for name, ranks in changing.items():
            self._resize(self.jobs[name], ranks)

    def _may_begin(self, job):
        return all(self.jobs[name].status == FINISHED for name in job.after)

    def _next_tag(self):
        self._tag = self._tag % MOST_TAGS + 1
        return self._tag

    def _start(self, job, ranks):
        self.free -= set(ranks)
        job.begin(ranks)
        self._note("start", job, ranks=ranks, attempt=job.attempt)
        order = {"kind": "start", "job": job.key, "ranks": spans(ranks)}
        order |= {"tag": self._next_tag(), "n_active": len(ranks)}
        own = {"text": job.text}
        order["resume"] = "newest" if job.resume else None
        for rank in ranks:
            self._mail.order(rank, **order, **(own if rank == ranks[0] else {}))

    def _resize(self, job, ranks):
        numbers = {"n_ranks": len(ranks), "tag": self._next_tag()}
        told = {"kind": "resize", "job": job.key, "ranks": spans(ranks), **numbers}
        self._mail.order(job.running.ranks[0], **told)
        self.free -= set(ranks)  # those that join; the others are not free
        job.change(ranks)

    def end_program(self):
        """End all ranks, because rank 0 itself hangs in a job; never returns.

        All other jobs are over. ``--resume`` goes on with what is not finished.
        """
        self._log.append("close", status=INTERRUPTED, spent_s=self.spent_s)
        sys.stderr.write(
            "pympi-train: rank 0 hangs in a job that was given up, so the pool ends "
            "here; its other jobs are over, and --resume goes on with this one\n"
        )
        end_with_output(1)

    def end(self):
        """Send the free ranks home."""
        with self._lock:
            for rank in sorted(self.free - {0}):
                self._mail.order(rank, kind="leave", has_lost=bool(self.lost))
            self._mail.finish()

    def _note(self, event, job, **more):
        try:
            self._log.append(event=event, time_s=time.time(), job=job.name, **more)
        except DataError as error:  # what happens now would be lost: save and stop
            self.failure = self.failure or error
            self.stop(signal.SIGTERM)
