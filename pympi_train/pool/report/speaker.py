"""What a pool prints while it runs; on rank 0."""

from pympi_train.pool import history as states
from pympi_train.pool.report.records import read_records
from pympi_train.pool.report.texts import ranks_text, score_text, shortened, varied_text
from pympi_train.runs.speech import seconds_text


class Speaker:
    """Prints a line for each start, resize and end of a job.

    Parameters
    ----------
    console : Console
        Or anything else with ``say(text)``.
    directory : path
        That of the pool.
    """

    def __init__(self, console, directory):
        self._say, self._directory = console.say, directory
        self._records = None

    def tell(self, event, history):
        """Print the line of an event, if it has one."""
        line = self._line(event, history)
        if line is not None:
            since_s = event["time_s"] - history.sessions[-1].start_s
            self._say(f"{since_s:8.1f} s  {line}")

    def _line(self, event, history):
        kind, name = event["event"], event.get("job")
        if kind == "start":
            job = history.jobs[name]
            again = f", attempt {job.attempts}" if job.attempts > 1 else ""
            values = _after(shortened(varied_text(self._varied(name))))
            return f"start    {name} on {_ranks(event)}{again}{values}"
        if kind == "resize":
            return f"resize   {name} to {_ranks(event)}"
        if kind == "end":
            job = history.jobs[name]
            text = score_text(job.result)
            if event["status"] != states.FINISHED and event.get("error"):
                text = shortened(event["error"])
            spent = ""
            if job.attempts:
                spent = f" after {seconds_text(job.seconds(event['time_s']))}"
            return f"{_LABELS[event['status']]:8} {name}{spent}" + _after(text)
        return None

    def _varied(self, name):
        """Return the values of the sweep of a job; those of a job file were written."""
        if self._records is None:
            self._records = read_records(self._directory)
        return self._records.get(name, {}).get("varied", {})


_LABELS = {
    states.FINISHED: "finished",
    states.FAILED: "failed",
    states.INTERRUPTED: "saved",
    states.CANCELLED: "cancel",
    states.SKIPPED: "skipped",
}


def _ranks(event):
    what = "rank" if len(event["ranks"]) == 1 else "ranks"
    return f"{what} {ranks_text(event['ranks'])}"


def _after(text):
    return f": {text}" if text else ""
