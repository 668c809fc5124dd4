"""The course of a training: one stretch after another, on changing ranks."""

import time

from pympi_train.checkpoint.handover import Handover
from pympi_train.checkpoint.read import StoredState
from pympi_train.comm.checks import together
from pympi_train.errors import ConfigError
from pympi_train.runs.elastic.crew import END, FAIL, READY, RESIZE
from pympi_train.runs.elastic.rows import move_rows, rows_in_memory
from pympi_train.runs.recovery.resume import ResumePoint
from pympi_train.runs.speech import counted


class Course:
    """What a training keeps when its ranks change.

    Parameters
    ----------
    config : Config
    crew : Crew
    console : Console or None
        On rank 0.
    resume : str, ResumePoint or None
        As for `job.train`; it counts for the first stretch.

    Attributes
    ----------
    stop : Stop
        To be set: what signals have asked for.
    attempt : Attempt
        To be set: is told how far the training has come.
    run : RunDirectory or None
        On rank 0, once it is made.
    saver : Checkpoints or None
        Those of the last stretch.
    data : Loaded or None
        Rows in memory that other ranks have handed over, for `rows.on_ranks`.
    began_s : float
        By `time.perf_counter`.
    first_step : int
        Steps done before this start of the program, on ranks that trained at first.
    startup : dict
        Seconds by part of the first start of this rank.
    training_s : float
        Seconds in steps and evaluations, times the ranks that were active.
    """

    stop = attempt = run = saver = startup = data = None
    training_s, first_step = 0.0, 0
    _handover = _next = None

    def __init__(self, config, crew, console, resume):
        self.config, self.console, self.resume = config, console, resume
        self._crew, self.began_s = crew, time.perf_counter()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self._crew.requests is not None:
            self._crew.requests.close()
        if self.run is not None:
            self.run.release()
        if error is None or self._crew.is_everyones(error):
            self._end_handover()

    def complete(self, stretch):
        """Run one stretch after another until the training ends; return its result.

        Parameters
        ----------
        stretch : callable
            ``stretch(ranks, found)`` trains on the active ranks, from the ResumePoint
            ``found`` if it is not None, until the training ends. It returns the result;
            None after `hand_over`.

        Notes
        -----
        Collective over all ranks of the job.
        """
        while True:
            work = self._lead if self._crew.is_active else self._wait
            result, n_ranks = work(stretch)
            if n_ranks is None:
                return result
            self._crew.form(n_ranks)

    def _lead(self, stretch):
        """Run a stretch; return its result, and the next number of ranks or None."""
        crew, self._next = self._crew, None
        with crew.active_ranks() as ranks:
            result = stretch(ranks, self._handed_over())
        if self._next is None and crew.n_parked:
            crew.order(END)
            result = crew.result_of_all(result)
        return result, self._next

    def _wait(self, stretch):
        """Wait on a parked rank; return as `_lead` on the active ones."""
        crew = self._crew
        while True:
            order, number = crew.next_order(is_read=self._handover is not None)
            if order == RESIZE:
                self._take_over(number, Handover(crew.everyone.comm))
                return None, number
            if order == READY:
                self._end_handover()
                if crew.settle():
                    return None, None
            elif order == FAIL:
                crew.raise_together()
            elif order == END:
                return crew.result_of_all(), None

    def hand_over(self, trainer, data, n_ranks, about):
        """Leave the training to ``n_ranks`` ranks.

        Parameters
        ----------
        trainer : Trainer
        data : Loaded or None
            This rank's rows; None on a server.
        n_ranks : int
        about : dict
            The fields of a ResumePoint: "config", "records", and "about", that of a
            checkpoint; rank 0's count.

        Notes
        -----
        Collective over the active ranks.
        """
        self._n_before, self._handed_s = self._crew.n_active, time.perf_counter()
        self._crew.gather(n_ranks)
        state, rows = trainer.state(copies=False), None
        if data is not None:
            n_on_node = trainer.ranks.n_on_node
            made_of = trainer.comm, self._n_with_rows(n_ranks), n_on_node
            rows = rows_in_memory(data, *made_of)
        self._crew.order(RESIZE, n_ranks)
        self._next = n_ranks
        about = {**about, "rows": rows}
        self._take_over(n_ranks, Handover(self._crew.everyone.comm, state, about), data)

    def _take_over(self, n_ranks, handover, data=None):
        """Receive what the next stretch begins with, on all ranks of the job."""
        self._handover, rows = handover, handover.about["rows"]
        self.data = None
        if rows is not None:
            n_with_rows = self._n_with_rows(n_ranks)
            n_groups = self.config.parallel.n_groups
            made_of = self._crew.everyone.comm, n_with_rows, n_groups
            data = move_rows(data, rows, *made_of)
            self.data = data if self._crew.everyone.rank < n_with_rows else None

    def _n_with_rows(self, n_ranks):
        """Return how many of ``n_ranks`` active ranks have rows: not the servers."""
        parallel = self.config.parallel
        n_servers = parallel.servers if parallel.strategy == "server" else 0
        return n_ranks - n_servers

    def _handed_over(self):
        """Return the ResumePoint at which this stretch begins; None at the start."""
        if self._handover is None:
            return None
        told = self._handover.about
        state = StoredState("the ranks before", self._handover.state, told["about"], {})
        return ResumePoint(state, told["config"], told["records"])

    def begin(self, saver, trainer, startup):
        """Note that the active ranks are ready; ``saver`` writes their checkpoints.

        ``startup`` are the seconds of their start by part. Collective over them.
        """
        crew, before = self._crew, self.saver
        if self._handover is not None:
            crew.order(READY)
            self._end_handover()
            crew.settle()
        saver.stop, self.saver = self.stop, saver
        self.startup = self.startup or startup
        if before is None:
            crew.begin_requests(self.run, self.config, self._say)
        elif self.run is not None:
            saver.follow(before)
            self._tell_resized(trainer)
        saver.requests = crew.requests
        if crew.requests is not None:
            crew.requests.tell(crew.n_active)

    def add_training(self, seconds):
        """Note ``seconds`` of steps and evaluations on the active ranks."""
        self.training_s += seconds * self._crew.n_active

    def _tell_resized(self, trainer):
        seconds = time.perf_counter() - self._handed_s
        self._say(
            f"resized  {self._n_before} -> {counted(self._crew.n_active, 'rank')} at "
            f"step {trainer.steps:,}, {seconds:.2f} s"
        )

    def _say(self, text):
        if self.console is not None:
            self.console.say(text)

    def _end_handover(self):
        if self._handover is not None:
            self._handover.free()
            self._handover = None


def n_active_at_first(config, comm):
    """Return the number of ranks that train at first.

    Raises
    ------
    ConfigError
        On every rank, if the job has fewer, or the training cannot run on so many.

    Notes
    -----
    Collective.
    """
    asked = config.elastic.ranks
    if asked is None:
        return comm.size
    with together(comm):
        if asked > comm.size:
            raise ConfigError(
                f"[elastic] ranks = {asked}, but the job has only "
                f"{counted(comm.size, 'rank')}: start more, or lower it"
            )
    return asked
