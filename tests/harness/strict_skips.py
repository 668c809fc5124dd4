"""``--strict-skips``: a test that was skipped for no expected reason is a failure."""

import pytest

# Beginnings of reasons; each is printed by ``-rs`` as well.
EXPECTED = (
    "a small tmpfs cannot be mounted: ",
    "strace is absent or not allowed",
    "hosts in network namespaces: ",
    "SLURM cannot start here: ",
    "runs were recorded with ",
    "onnx and onnxruntime are not installed",
    "strategy server has one worker on two ranks",
    "no ULFM: ",
    "no browser: ",
    "ReFrame is not installed",
)


def unexpected(reports):
    """Reports of skipped tests whose reason is none of `EXPECTED`."""
    return [report for report in reports if not reason(report).startswith(EXPECTED)]


def reason(report):
    return report.longrepr[2].removeprefix("Skipped: ")


class StrictSkips:
    """Fails the session, and says which tests were skipped."""

    def __init__(self):
        self._skipped = []

    def pytest_runtest_logreport(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(report)

    def pytest_collectreport(self, report):
        if report.skipped:
            self._skipped.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus == pytest.ExitCode.OK and unexpected(self._skipped):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for report in unexpected(self._skipped):
            line = f"SKIPPED UNEXPECTEDLY {report.nodeid}: {reason(report)}"
            terminalreporter.write_line(line, red=True)
