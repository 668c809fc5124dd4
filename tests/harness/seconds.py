"""The time of the tests is a budget: seconds by folder, beside what each may take.

``pytest --seconds FILE`` adds the seconds of its tests to FILE, a JSON object. At the
end of a check

    python tests/harness/seconds.py FILE tests/budget.json

prints both, and fails if a folder took more than it may.
"""

import json
import sys
from collections import Counter
from pathlib import Path


def folder_of(nodeid):
    """Return the folder below ``tests`` of a test, by its id; else its first part.

    Examples
    --------
    >>> folder_of("tests/comm/watch/test_guard.py::test_a[3ranks]")
    'comm'
    >>> folder_of("tests/test_layers.py::test_rule_itself")
    'tests'
    """
    first, *rest = nodeid.split("::")[0].split("/")
    return rest[0] if first == "tests" and len(rest) > 1 else first


class FolderSeconds:
    """Adds up the seconds of set-up, call and tear-down by folder.

    The first test of a launch on ranks counts with all of the launch.

    Parameters
    ----------
    path : path
        Of the JSON object that they are added to.
    """

    def __init__(self, path):
        self._path, self._seconds = Path(path), Counter()

    def pytest_runtest_logreport(self, report):
        self._seconds[folder_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self):
        if self._path.exists():
            self._seconds.update(json.loads(self._path.read_text()))
        self._path.write_text(json.dumps(self._seconds, indent=1))


def over_budget(seconds, budget):
    """Return the folders that took more seconds than their budget, or have none."""
    return sorted(name for name, s in seconds.items() if s > budget.get(name, 0))


def main(found, allowed):
    """Print the table; return the exit status."""
    seconds, budget = (json.loads(Path(path).read_text()) for path in (found, allowed))
    print(f"{'folder':16} {'seconds':>8} {'budget':>8}")
    for name in sorted(seconds, key=seconds.get, reverse=True):
        print(f"{name:16} {seconds[name]:8.0f} {budget.get(name, 0):8.0f}")
    print(f"{'all':16} {sum(seconds.values()):8.0f} {sum(budget.values()):8.0f}")
    wrong = over_budget(seconds, budget)
    if wrong:
        print(f"over budget: {', '.join(wrong)}; {allowed} says what each may take")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
