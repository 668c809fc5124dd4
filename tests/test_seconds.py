"""The time of the tests: added up by folder, and compared with a budget."""

import json
from types import SimpleNamespace

import pytest
import seconds


@pytest.mark.parametrize(
    "nodeid, folder",
    [
        ("tests/comm/watch/test_guard.py::test_a[x/y-3ranks]", "comm"),
        ("tests/test_layers.py::test_rule_itself", "tests"),
        ("pympi_train/data/order.py::pympi_train.data.order", "pympi_train"),
    ],
)
def test_folder_of_a_test(nodeid, folder):
    assert seconds.folder_of(nodeid) == folder


def test_sessions_add_up_and_too_many_seconds_fail(tmp_path, capsys):
    found, budget = tmp_path / "seconds", tmp_path / "budget.json"
    for _ in range(2):
        session = seconds.FolderSeconds(found)
        for phase_s in (1.0, 0.5):
            report = SimpleNamespace(nodeid="tests/comm/test_a.py::b", duration=phase_s)
            session.pytest_runtest_logreport(report)
        session.pytest_sessionfinish()
    assert json.loads(found.read_text()) == {"comm": 3.0}
    budget.write_text('{"comm": 4}')
    assert seconds.main(found, budget) == 0
    for too_little in ('{"comm": 2}', "{}"):
        budget.write_text(too_little)
        assert seconds.main(found, budget) == 1
        assert "over budget: comm" in capsys.readouterr().out
