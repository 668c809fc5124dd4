"""Measures each number of ranks in a SLURM job of its own. Without MPI here.

The tasks of an array of jobs all have the same nodes. It is therefore one job for each
number of ranks: few ranks need not wait until the nodes for many are free. The job runs
a study of its number of ranks alone by `srun`; its file is a part of the whole study.
"""

import dataclasses
import os
import time
from functools import partial
from pathlib import Path

from pympi_train.checkpoint.durable import naming
from pympi_train.errors import ConfigError, DataError, LaunchError
from pympi_train.launch.launches import LaunchInterrupted, interruptible
from pympi_train.launch.said import end_of, last_words
from pympi_train.paths import require_utf8
from pympi_train.runs.output import replacing
from pympi_train.slurm import jobs
from pympi_train.slurm.command import command_script

TICK_S = 0.2
ABOUT = "Measures on {ranks}, in {part}. Submitted again, it goes on."
# In these states it was the study within the job that ended it.
OWN_END = ("COMPLETED", "FAILED")


class StudyJobs:
    """The jobs of a study, one for each number of ranks.

    Parameters
    ----------
    folder : path
        Absolute; where the scripts, outputs and parts are. Made if needed.
    name : str
        Beginning of the jobs' names; a result of `job_name`.
    request : JobRequest
        ``ntasks_per_node`` is the maximum number of ranks on a node; ``nodes`` is not
        used.
    words : callable
        ``words(n_ranks, path)`` returns the command that measures on so many ranks, and
        writes the study in the file ``path``.
    """

    def __init__(self, folder, name, request, words):
        self.folder, self._name = Path(folder), name
        self._request, self._words = request, words

    def part(self, n_ranks):
        """Return the path of the part of the study on so many ranks."""
        return self._path(n_ranks, "json")

    def start(self, n_ranks, say):
        """Return the number of the job for so many ranks; submit it if there is none.

        Raises
        ------
        LaunchError
            If SLURM refuses it.
        DataError
            If a file cannot be written.
        """
        name, number = f"{self._name}-{n_ranks}", self.number(n_ranks)
        if number and jobs.is_active(number, name):
            say(f"job {number}, {_ranks(n_ranks)}: submitted before")
            return number
        request = job_request(self._request, n_ranks)
        about = ABOUT.format(ranks=_ranks(n_ranks), part=self.part(n_ranks).name)
        words = self._words(n_ranks, str(self.part(n_ranks)))
        script = self._path(n_ranks, "sbatch")
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        folder = require_utf8(os.getcwd())
        _write(script, command_script(request, name, folder, words, about))
        number, doubt = jobs.submit(str(script), self.folder)
        _write(self._path(n_ranks, "job"), f"{number}\n")
        nodes = "1 node" if request.nodes == 1 else f"{request.nodes} nodes"
        say(f"job {number}, {_ranks(n_ranks)}: submitted, {nodes}")
        if doubt:
            say(f"job {number} may not start: {doubt}")
        return number

    def number(self, n_ranks):
        """Return the number of the last job for so many ranks, or None."""
        path = self._path(n_ranks, "job")
        found = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        return found if found.isdigit() else None

    def _path(self, n_ranks, kind):
        return self.folder / f"ranks-{n_ranks}.{kind}"


def _ranks(n):
    return "1 rank" if n == 1 else f"{n} ranks"


def _write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def job_request(request, n_ranks):
    """Return a JobRequest for so many ranks: as few nodes as they need, filled evenly.
    """
    nodes = -(-n_ranks // request.ntasks_per_node)
    return dataclasses.replace(
        request, nodes=nodes, ntasks_per_node=-(-n_ranks // nodes)
    )


def measure_by_jobs(study, cases, study_jobs, say):
    """Measure the cases that a study lacks in jobs; return the number that failed.

    Parameters
    ----------
    study : Study
    cases : list of StudyCase
    study_jobs : StudyJobs
    say : callable

    Raises
    ------
    LaunchInterrupted
        If a signal came; the jobs stay in the queue.
    LaunchError
        If nothing was measured, or SLURM does not answer.
    ConfigError, DataError
        If the part of an earlier job is of another study, or cannot be read.
    """
    for n_ranks in sorted({case.ranks for case in cases}):
        if study_jobs.part(n_ranks).exists():
            _merge(study, study_jobs, n_ranks)
    todo = _missing(study, cases)
    if len(todo) < len(cases):
        say(f"{len(cases) - len(todo)} of {len(cases)} cases were measured before")
    numbers = {}
    with interruptible() as require_no_signal:
        pause = partial(_pause, require_no_signal)
        try:
            for n_ranks in sorted({case.ranks for case in todo}):
                own = [case for case in todo if case.ranks == n_ranks]
                try:
                    numbers[study_jobs.start(n_ranks, say)] = n_ranks, own
                except LaunchError as error:
                    _note(study, own, str(error), say)
                pause(0)
            for number, tasks in jobs.follow_each(list(numbers), say, pause):
                n_ranks, own = numbers.pop(number)
                _collect(study, study_jobs, n_ranks, own, tasks[0], say)
        except (LaunchInterrupted, LaunchError):  # the latter: SLURM does not answer
            if numbers:
                say(_left_in_queue(list(numbers)))
            raise
    failed = _missing(study, cases)
    if len(failed) == len(cases):
        raise LaunchError(f"nothing was measured: {_error_of(study, failed[0])}")
    return len(failed)


def _missing(study, cases):
    return [case for case in cases if study.find(case) is None]


def _pause(require_no_signal, seconds):
    """Wait; raise LaunchInterrupted if a signal comes."""
    ends_s = time.monotonic() + seconds
    while (left_s := ends_s - time.monotonic()) > 0:
        require_no_signal()
        time.sleep(min(TICK_S, left_s))
    require_no_signal()


def _left_in_queue(numbers):
    listed = ", ".join(numbers)
    return (
        f"still in the queue: {'jobs' if len(numbers) > 1 else 'job'} {listed}. The "
        "same command waits for what is measured there; to end it: "
        f"scancel {' '.join(numbers)}"
    )


def _merge(study, study_jobs, n_ranks):
    study.content.setdefault("jobs", {})[str(n_ranks)] = study_jobs.number(n_ranks)
    return study.merge(study_jobs.part(n_ranks))


def _collect(study, study_jobs, n_ranks, cases, task, say):
    """Add what a job measured; note for the other cases why there is nothing."""
    state = (task["state"] or "unknown").lower()
    cause = f"job {task['id']} {state}, exit status {task['exit_status']}"
    if words := _last_words(task["output"]):
        cause += f": {words}; its output: {task['output']}"
    tried = []
    try:
        if study_jobs.part(n_ranks).exists():
            tried = _merge(study, study_jobs, n_ranks)
    except (ConfigError, DataError) as error:
        cause = str(error)
    if task["state"] not in OWN_END:  # what the study within met then is no cause
        tried = []
    missing = _missing(study, cases)
    say(
        f"job {task['id']} {state}: {len(cases) - len(missing)} of {len(cases)} cases "
        "measured"
    )
    for case in missing:
        if case in tried:
            say(f"{case}: failed: {_error_of(study, case)}")
    _note(study, [case for case in missing if case not in tried], cause, say)


def _note(study, cases, cause, say):
    for case in cases:
        study.add(case, {"error": cause})
    if cases:
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        say(f"{cases[0]}{more}: failed: {cause}")


def _error_of(study, case):
    """Return why a case was not measured; None if nothing is known."""
    for one in study.content["measurements"]:
        if (one["mode"], one["strategy"], one["ranks"], one["repeat"]) == tuple(case):
            return one["error"]
    return None


def _last_words(path):
    """Return `last_words` of the output of a job; "" if there is none."""
    try:
        with open(path, "rb") as file:
            return last_words(end_of(file))
    except (OSError, TypeError):
        return ""
