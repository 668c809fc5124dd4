"""Launches of ranks one after another, each with cores of its own and an end."""

import math
import os
import signal
from contextlib import contextmanager

from pympi_train.errors import ConfigError
from pympi_train.launch.cores import binding, with_threads
from pympi_train.launch.launched import Launched
from pympi_train.launch.launchers import find_launcher, launcher_family
from pympi_train.launch.said import end_of, last_words
from pympi_train.launch.supervise import describe_status
from pympi_train.launch.training import own_program
from pympi_train.programs import run_program
from pympi_train.runs.recovery.signals import orderly

TICK_S = 0.5
ANSWER_S = 60.0


class LaunchInterrupted(Exception):
    """A signal has ended a launch; its message is the name of the signal."""


@contextmanager
def interruptible():
    """Let signals end the body in order: yield a function to call every now and then.

    It raises LaunchInterrupted once a signal has come.
    """
    with orderly() as stop, stop.during(lambda: None):

        def require_no_signal():
            if stop.signal:
                raise LaunchInterrupted(signal.Signals(stop.signal).name)

        yield require_no_signal


class Launches:
    """Starts ``pympi-train`` on ranks; in the ``with`` block, signals end it in order.

    Parameters
    ----------
    launcher : Launcher
    family : str or None
        As for `cores.binding`.
    cores_per_rank : int
    timeout_s : float
        Maximum time of one launch.
    """

    def __init__(self, launcher, family, cores_per_rank, timeout_s=math.inf):
        self._launcher, self._family = launcher, family
        self._cores, self._timeout_s = cores_per_rank, timeout_s

    def __enter__(self):
        self._signals = interruptible()
        self._require_no_signal = self._signals.__enter__()
        return self

    def __exit__(self, *error):
        return self._signals.__exit__(*error)

    def run(self, n_ranks, words, log):
        """Run ``pympi-train`` with ``words`` on ranks; return None, or why it failed.

        Parameters
        ----------
        n_ranks : int
        words : list of str
        log : path
            Receives what the ranks print.

        Raises
        ------
        LaunchInterrupted
            If a signal came; the ranks are ended.
        """
        bound = binding(self._family, n_ranks, self._cores)
        launcher = self._launcher._replace(words=(*self._launcher.words, *bound))
        program = with_threads([*own_program(), *words], self._cores)
        argv = launcher.command(n_ranks, program)
        with open(log, "w+b") as file:
            status = self._wait(argv, file)
            last = last_words(end_of(file))
        if status is None:
            return f"no end within {self._timeout_s:,.0f} s: {last or 'no output'}"
        return None if status == 0 else last or describe_status(status)

    def _wait(self, argv, log):
        """Return the exit status; None if the launch took longer than it may."""
        waited_s = 0.0
        with Launched(argv, stdout=log, stderr=log) as job:
            while (status := job.wait(TICK_S)) is None:
                waited_s += TICK_S
                self._require_no_signal()
                if waited_s >= self._timeout_s:
                    return None
            return status


def choose_launcher(given, environ):
    """Return the Launcher, and its family as `cores.binding` takes it.

    Parameters
    ----------
    given : str
        "auto", "mpirun", "srun", or a command with its options, whose ranks are bound
        by these options alone.
    environ : mapping of str to str

    Raises
    ------
    LaunchError
        If there is none.
    ConfigError
        If srun is asked for outside of a SLURM job.
    """
    if given not in ("auto", "mpirun", "srun"):
        return find_launcher(given, environ), None
    if given == "srun" and "SLURM_JOB_ID" not in environ:
        raise ConfigError(
            "--launcher srun: this is no SLURM job; start it by sbatch or salloc, or "
            "submit jobs by scaling --launcher slurm"
        )
    if given == "mpirun":
        environ = {k: v for k, v in environ.items() if not k.startswith("SLURM_")}
    launcher = find_launcher(None, environ)
    name = os.path.basename(launcher.words[0])
    if given == "srun" and name != "srun":
        raise ConfigError(
            f"--launcher srun: it cannot start ranks of {launcher.about}: use "
            "--launcher mpirun"
        )
    if name == "srun":
        return launcher, "srun"
    told = run_program([launcher.words[0], "--version"], ANSWER_S)
    return launcher, launcher_family(told.stdout + told.stderr)
