"""Runs a study: one launch of ranks after another. Without MPI in this process."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from pympi_train.errors import LaunchError

GIVEN_UP = 2  # failed launches of a case: more would fail too, perhaps after an hour


def measure_cases(study, cases, launches, words, say):
    """Measure what a study lacks; return the number of launches that failed.

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
    LaunchInterrupted
        If a signal came; what was measured is kept.
    LaunchError
        If the first launch fails, one on the fewest ranks: others would fail too.
    """
    todo = [case for case in cases if study.find(case) is None]
    if todo:
        first = min(todo, key=lambda case: case.ranks)
        todo.remove(first)
        todo.insert(0, first)
    n_failed, n_ok, failures = 0, len(cases) - len(todo), Counter()
    if n_ok:
        say(f"{n_ok} of {len(cases)} cases were measured before")
    with launches:
        for number, case in enumerate(todo, 1):
            if failures[case[:3]] >= GIVEN_UP:
                say(f"{number}/{len(todo)}  {case}: left out, as others of it failed")
                n_failed += 1
                continue
            found, error = _measure(launches, case.ranks, words(case))
            study.add(case, {"error": error, **(found or {})})
            say(f"{number}/{len(todo)}  {case}: {_told(found, error)}")
            n_failed += error is not None
            failures[case[:3]] += error is not None
            n_ok += error is None
            if error is not None and not n_ok and number == 1:
                raise LaunchError(f"{case}: {error}")
        for n_ranks in _ranks_that_exchange(study, cases):
            if not study.has_exchanges(n_ranks):
                found, error = _measure(launches, n_ranks, words(None))
                if error is None:
                    study.add_exchanges(found)
                n_failed += error is not None
                say(f"exchanges, {n_ranks} ranks: {error or 'measured'}")
    return n_failed


def _ranks_that_exchange(study, cases):
    """Return the numbers of ranks of which fits use exchanges, ascending.

    Those with fewer cores than ranks only if there are no others: sums of ranks that
    take turns on cores last minutes, and say nothing.
    """
    found = [one for case in cases if (one := study.find(case)) is not None]
    known = {one["ranks"]: one["oversubscribed"] for one in found}
    fitted = [n for n, is_crowded in known.items() if not is_crowded] or [*known]
    return sorted({*fitted} - {1})


def _measure(launches, n_ranks, words):
    """Return what rank 0 of a launch has written, or None, and why it failed, or None.

    The name of the file is the last of the launch's words.
    """
    with tempfile.TemporaryDirectory(prefix="pympi-train-scaling-") as folder:
        path = Path(folder) / "found.json"
        error = launches.run(n_ranks, [*words, str(path)], Path(folder) / "log.txt")
        if error is None and not path.exists():
            error = "the ranks ended without a result"
        if error is not None:
            return None, error
        return json.loads(path.read_text(encoding="utf-8")), None


def _told(found, error):
    if error is not None:
        return f"failed: {error}"
    middle = sorted(found["step_s"])[len(found["step_s"]) // 2]
    return f"{1e3 * middle:.3f} ms a step" + (
        ", more ranks than cores" if found["oversubscribed"] else ""
    )
