"""Runs a study: one launch of ranks after another. Without MPI in this process."""

import json
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

from pympi_train.errors import LaunchError
from pympi_train.launch.launched import Launched
from pympi_train.launch.said import last_words
from pympi_train.launch.supervise import describe_status
from pympi_train.launch.training import own_program
from pympi_train.runs.recovery.signals import orderly
from pympi_train.scaling.study.cores import binding
from pympi_train.scaling.study.launching import with_environment

TICK_S = 0.5
GIVEN_UP = 2  # failed launches of a case: more would fail too, perhaps after an hour
WORDS = 4000  # bytes of what a launch that failed has printed


class StudyInterrupted(Exception):
    """A signal has ended the study."""


class Launches:
    """Starts ranks that measure.

    Parameters
    ----------
    launcher : Launcher
    family : str or None
        As for `cores.binding`.
    cores_per_rank : int
    timeout_s : float
        Of one launch.
    """

    def __init__(self, launcher, family, cores_per_rank, timeout_s):
        self._launcher, self._family = launcher, family
        self._cores, self._timeout_s = cores_per_rank, timeout_s

    def run(self, n_ranks, words, stop):
        """Start ``pympi-train`` with ``words`` on ranks; return what rank 0 has found.

        Parameters
        ----------
        n_ranks : int
        words : list of str
            The name of a file is added, to which rank 0 writes JSON.
        stop : Stop
            Of `signals.orderly`.

        Returns
        -------
        object or None
            What the file contains; None if the launch failed.
        str or None
            Why it failed.

        Raises
        ------
        StudyInterrupted
            If a signal came; the ranks are ended.
        """
        launcher = self._launcher._replace(
            words=(
                *self._launcher.words,
                *binding(self._family, n_ranks, self._cores),
            )
        )
        with tempfile.TemporaryDirectory(prefix="pympi-train-scaling-") as folder:
            found = Path(folder) / "found.json"
            program = [*own_program(), *words, str(found)]
            argv = with_environment(launcher.command(n_ranks, program), self._cores)
            with open(Path(folder) / "said", "w+b") as said:
                status = self._wait(argv, said, stop)
                said.seek(max(0, said.seek(0, os.SEEK_END) - WORDS))
                text = said.read().decode(errors="replace").strip()
            if status == 0 and found.exists():
                return json.loads(found.read_text(encoding="utf-8")), None
        return None, _reason(status, text)

    def _wait(self, argv, said, stop):
        waited_s = 0.0
        with Launched(argv, stdout=said, stderr=said) as job:
            while (status := job.wait(TICK_S)) is None:
                waited_s += TICK_S
                if stop.signal:
                    raise StudyInterrupted(signal.Signals(stop.signal).name)
                if waited_s >= self._timeout_s:
                    return None
            return status


def _reason(status, text):
    last = last_words(text)
    if status is None:
        return ": ".join(["no end within --timeout", *filter(None, [last])])
    return last or describe_status(status)


def measure_cases(study, cases, launches, words, say):
    """Measure the cases that a study lacks; return the number of those that failed.

    After ``GIVEN_UP`` failed launches, further repeats of a case are left out.

    Parameters
    ----------
    study : Study
    cases : list of StudyCase
    launches : Launches
    words : callable
        ``words(case)`` returns the words after ``pympi-train`` for a launch; None for
        ``case`` asks for the exchanges.
    say : callable

    Raises
    ------
    StudyInterrupted
        If a signal came; what was measured is kept.
    LaunchError
        If the first launch fails, which a later one would do too.
    """
    todo = [case for case in cases if study.find(case) is None]
    if len(todo) < len(cases):
        say(f"{len(cases) - len(todo)} of {len(cases)} cases were measured before")
    n_failed, n_ok, failures = 0, len(cases) - len(todo), Counter()
    with orderly() as stop, stop.during(lambda: None):
        for number, case in enumerate(todo, 1):
            if failures[case[:3]] >= GIVEN_UP:
                say(f"{number}/{len(todo)}  {case}: left out, as others of it failed")
                n_failed += 1
                continue
            found, error = launches.run(case.ranks, words(case), stop)
            study.add(case, {"error": error, **(found or {})})
            say(f"{number}/{len(todo)}  {case}: {_told(found, error)}")
            n_failed += error is not None
            failures[case[:3]] += error is not None
            n_ok += error is None
            if error is not None and not n_ok and number == 1:
                raise LaunchError(f"{case}: {error}")
        known = {case.ranks for case in cases if study.find(case) is not None}
        for n_ranks in sorted(known - {1}):
            if not study.has_exchanges(n_ranks):
                found, error = launches.run(n_ranks, words(None), stop)
                if error is None:
                    study.add_exchanges(found)
                say(f"exchanges, {n_ranks} ranks: {error or 'measured'}")
    return n_failed


def _told(found, error):
    if error is not None:
        return f"failed: {error}"
    middle = sorted(found["step_s"])[len(found["step_s"]) // 2]
    return f"{1e3 * middle:.3f} ms a step" + (
        ", more ranks than cores" if found["oversubscribed"] else ""
    )
