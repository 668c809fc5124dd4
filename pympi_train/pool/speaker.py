"""What a pool prints while it runs. Used on rank 0 only."""

from pympi_train.pool import history as states
from pympi_train.pool.texts import ranks_text, score_text, shortened, varied_text
from pympi_train.runs.speech import counted, seconds_text


class Speaker:
    """Prints a line for each start, resize and end of a job.

    Parameters
    ----------
    console : Console
    plan : Plan
    """

    def __init__(self, console, plan):
        self.say, self._plan = console.say, plan
        self._varied = {job.name: job.varied for job in plan.jobs}

    def open(self, n_left, n_ranks):
        """Print what is to be done: so many jobs, on so many ranks."""
        plan = self._plan
        kept = len(plan.jobs) - n_left
        done = f", {kept:,} of them finished before" if kept else ""
        jobs, ranks = counted(len(plan.jobs), "job"), counted(n_ranks, "rank")
        self.say(f"pool     {plan.directory}: {jobs}{done}, {ranks}")

    def tell(self, event, history):
        """Print the line of an event, if it has one."""
        line = self._line(event, history)
        if line is not None:
            since_s = event["time_s"] - history.sessions[-1].start_s
            self.say(f"{since_s:8.1f} s  {line}")

    def _line(self, event, history):
        kind, name = event["event"], event.get("job")
        if kind == "start":
            job, text = history.jobs[name], varied_text(self._varied.get(name, {}))
            again = f", attempt {job.attempts}" if job.attempts > 1 else ""
            return f"start    {name} on {_ranks(event)}{again}" + _after(text)
        if kind == "resize":
            return f"resize   {name} to {_ranks(event)}"
        if kind == "end":
            job = history.jobs[name]
            text = score_text(job.result)
            if event["status"] != states.FINISHED and event.get("error"):
                text = shortened(event["error"])
            spent = f" after {seconds_text(job.seconds(event['time_s']))}"
            return f"{_LABELS[event['status']]:8} {name}{spent}" + _after(text)
        return None


_LABELS = {
    states.FINISHED: "finished",
    states.FAILED: "failed",
    states.INTERRUPTED: "saved",
    states.CANCELLED: "cancel",
    states.SKIPPED: "skipped",
}


def _ranks(event):
    ranks = event["ranks"]
    text = "rank" if len(ranks) == 1 else "ranks"
    return f"{text} {ranks_text(ranks)} ({counted(len(ranks), 'rank')})"


def _after(text):
    return f": {text}" if text else ""
