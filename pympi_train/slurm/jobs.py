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


def submit(script):
    """Submit a batch script; return the number of the job.

    Returns
    -------
    (str, str or None)
        The number, and what SLURM says if the job cannot start as things are.

    Raises
    ------
    LaunchError
        If SLURM refuses it, with its reason: an unknown partition, for example.
    """
    tried = run_tool("sbatch", "--test-only", script, check=False)
    done = run_tool("sbatch", "--parsable", script, check=False)
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
    told = {}
    while True:
        done = run_tool("squeue", "-h", "-j", number, "-o", "%i|%T|%r", check=False)
        active = [line.split("|") for line in done.stdout.splitlines()]
        active = [row for row in active if len(row) == 3 and row[1] in ACTIVE]
        for name, state, reason in active:
            if told.get(name) != (state, reason):
                told[name] = state, reason
                why = "" if reason in ("None", "") else f": {reason}"
                say(f"job {name} {state.lower()}{why}")
        if not active and not _is_unanswered(done):
            return ended_jobs(run_tool("scontrol", "show", "job", number).stdout)
        time.sleep(POLL_S)


def _is_unanswered(done):
    """Return whether `squeue` failed for another reason than that the job is gone."""
    return done.returncode != 0 and "Invalid job id" not in done.stderr


def ended_jobs(text):
    """Return what `follow` does, from the output of ``scontrol show job``.

    Examples
    --------
    >>> ended_jobs("JobId=7 JobName=a\\n   JobState=FAILED Reason=x\\n   "
    ...     "ExitCode=2:0\\n   StdOut=/tmp/a b.out\\n")
    [{'id': '7', 'state': 'FAILED', 'exit_status': 2, 'output': '/tmp/a b.out'}]
    """
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        fields = {}
        for name in ("JobId", "ArrayJobId", "ArrayTaskId", "JobState", "ExitCode"):
            match = re.search(rf"(?:^|\s){name}=(\S*)", block)
            fields[name] = match[1] if match else None
        output = re.search(r"^\s*StdOut=(.*)$", block, re.MULTILINE)
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
