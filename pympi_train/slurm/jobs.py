"""Jobs in SLURM: submitted, and followed to their end."""

import re
import time

from pympi_train.errors import LaunchError
from pympi_train.slurm.tools import run_tool, what_it_said

POLL_S = 5.0  # a shared controller: not more often
ACTIVE = frozenset(
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED REQUEUED REQUEUE_HOLD STOPPED "
    "SIGNALING RESIZING STAGE_OUT".split()
)


def submit(script, folder=None):
    """Submit a batch script; return the number of the job.

    Parameters
    ----------
    script : path
    folder : path, optional
        Where the job begins and writes its output; default: the working directory.

    Returns
    -------
    (str, str or None)
        The number, and what SLURM says if the job cannot start as things are.

    Raises
    ------
    LaunchError
        If SLURM refuses it, with its reason: an unknown partition, for example.
    """
    where = [] if folder is None else [f"--chdir={folder}"]
    tried = run_tool("sbatch", "--test-only", *where, script, check=False)
    done = run_tool("sbatch", "--parsable", *where, script, check=False)
    if done.returncode != 0:
        raise LaunchError(f"sbatch refuses {script}: {what_it_said(done)}")
    number = done.stdout.strip().partition(";")[0]  # ";cluster" in a federation
    return number, what_it_said(tried) if tried.returncode else None


def follow(number, say):
    """Wait until a job, or all tasks of an array, have ended.

    Parameters
    ----------
    number : str
    say : callable
        Called with a line when a state changes, and why a job does not start.

    Returns
    -------
    list of dict
        id, state, exit_status, output of the job or of each task.
    """
    ((_, tasks),) = follow_each([number], say)
    return tasks


def follow_each(numbers, say, pause=time.sleep):
    """Yield the number and the tasks of each of several jobs when it has ended.

    Parameters
    ----------
    numbers : list of str
    say : callable
        As for `follow`.
    pause : callable
        Called with seconds between questions to SLURM; what it raises ends the wait.

    Yields
    ------
    (str, list of dict)
        A number, and what `follow` returns for it.
    """
    told, waiting = {}, list(numbers)
    while waiting:
        active = _active_jobs(waiting, told, say)
        ended = [] if active is None else [n for n in waiting if n not in active]
        for number in ended:
            waiting.remove(number)
            yield number, _ended_tasks(number)
        if waiting:
            pause(POLL_S)


def _active_jobs(numbers, told, say):
    """Return the numbers of jobs that have not ended; None if SLURM does not answer."""
    listed = ",".join(numbers)
    done = run_tool("squeue", "-h", "-j", listed, "-o", "%i|%T|%r", check=False)
    active = [line.split("|") for line in done.stdout.splitlines()]
    active = [row for row in active if len(row) == 3 and row[1] in ACTIVE]
    for name, state, reason in active:
        if told.get(name) != (state, reason):
            told[name] = state, reason
            why = "" if reason in ("None", "") else f": {reason}"
            say(f"job {name} {state.lower()}{why}")
    if _is_unanswered(done):
        return None
    return {name.partition("_")[0] for name, _, _ in active}


def is_active(number, name):
    """Return whether a job of this number and name waits or runs.

    Raises
    ------
    LaunchError
        If SLURM does not answer.
    """
    done = run_tool("squeue", "-h", "-j", number, "-o", "%T|%j", check=False)
    if _is_unanswered(done):
        raise LaunchError(f"squeue failed: {what_it_said(done)}")
    found = [line.partition("|") for line in done.stdout.splitlines()]
    return any(state in ACTIVE and own == name for state, _, own in found)


def _is_unanswered(done):
    """Return whether `squeue` failed for another reason than that the job is gone."""
    return done.returncode != 0 and "Invalid job id" not in done.stderr


def _ended_tasks(number):
    done = run_tool("scontrol", "show", "job", number, check=False)
    if done.returncode == 0:
        return ended_jobs(done.stdout)
    # SLURM forgets jobs minutes after their end (MinJobAge).
    return [{"id": number, "state": "UNKNOWN", "exit_status": None, "output": None}]


def ended_jobs(text):
    """Return what `follow` does, from the output of ``scontrol show job``.

    Examples
    --------
    >>> ended_jobs("JobId=7 JobName=a\\n   JobState=FAILED Reason=x\\n   "
    ...     "ExitCode=2:0\\n   StdOut=/tmp/a\\n b.out\\n   Power=\\n")
    [{'id': '7', 'state': 'FAILED', 'exit_status': 2, 'output': '/tmp/a\\n b.out'}]
    """
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        fields = {}
        for name in ("JobId", "ArrayJobId", "ArrayTaskId", "JobState", "ExitCode"):
            match = re.search(rf"(?:^|\s){name}=(\S*)", block)
            fields[name] = match[1] if match else None
        # To the next field: the path may have line breaks.
        output = re.search(r"^\s*StdOut=(.*?)(?=\n\s+\w+=|\n?\Z)", block, re.M | re.S)
        name = fields["JobId"]
        if fields["ArrayJobId"]:
            name = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
        status = (fields["ExitCode"] or "0").partition(":")[0]
        found.append(
            {
                "id": name,
                "state": fields["JobState"],
                "exit_status": int(status),
                "output": output and output[1],
            }
        )
    return found
