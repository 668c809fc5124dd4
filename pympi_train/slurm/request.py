"""What a SLURM job asks for: the options of ``pympi-train slurm``, checked."""

import dataclasses
import os
import re
from dataclasses import dataclass

from pympi_train.errors import ConfigError

DURATION = re.compile(
    r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])"
)
_TASKS = r"[0-9]{1,7}(-[0-9]{1,7}(:[1-9][0-9]{0,6})?)?"
ARRAY = re.compile(rf"{_TASKS}(,{_TASKS})*(%[1-9][0-9]{{0,6}})?")
# Of directives, which SLURM reads by rules of its own: no character that needs quotes.
PLAIN = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}"
NAME = re.compile(PLAIN)
NAMES = re.compile(rf"{PLAIN}(,{PLAIN})*")
MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/:@=~-]{0,199}")
IMAGE_URL = re.compile(r"[a-z][a-z0-9+-]*://\S+")
MOST_SIGNAL_S = 65535  # what SLURM takes
SIGNAL_S = 120
SHORT_S = 600  # SLURM looks for signals to send once a minute: too coarse for less
MOST_TASKS = 100_000


@dataclass(frozen=True)
class JobRequest:
    """The resources of a job, and how its training starts.

    Attributes
    ----------
    nodes, ntasks_per_node : int
    time : str
        The time limit, HH:MM:SS or D-HH:MM:SS.
    cpus_per_task, gpus_per_node : int or None
    partition, account : str or None
    array : str or None
        Task numbers as SLURM takes them: "0-5%2".
    signal_before : int or None
        Seconds before the time limit at which SLURM tells the ranks to save. By
        default SIGNAL_S; not at all in jobs of less than SHORT_S, in which the ranks
        look at the clock alone.
    modules : tuple of str
        Environment modules to load.
    container : str or None
        An Apptainer image.

    Raises
    ------
    ConfigError
        If a value is missing or is not what SLURM takes.
    """

    nodes: int | None = None
    ntasks_per_node: int | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    partition: str | None = None
    account: str | None = None
    array: str | None = None
    signal_before: int | None = None
    modules: tuple = ()
    container: str | None = None

    def __post_init__(self):
        for name in ("nodes", "ntasks_per_node", "time"):
            if getattr(self, name) is None:
                raise ConfigError(f"{option_of(name)} is required")
        for name in COUNTS:
            _require_count(option_of(name), getattr(self, name))
        limit_s = duration_s(self.time)
        if self.signal_before is None:
            if limit_s >= SHORT_S:
                object.__setattr__(self, "signal_before", SIGNAL_S)
        elif self.signal_before > min(limit_s - 1, MOST_SIGNAL_S):
            raise ConfigError(
                f"--signal-before {self.signal_before}: expected fewer seconds than "
                f"those of --time {self.time}, and at most {MOST_SIGNAL_S}"
            )
        _require_form("--partition", self.partition, NAMES, "a name, or several: a,b")
        _require_form("--account", self.account, NAME, "a name")
        for module in self.modules:
            _require_form("--module", module, MODULE, "a name such as gcc/13.2")
        if self.array is not None:
            array_indices(self.array)
        if self.container is not None:
            _require_image(self.container)


COUNTS = ("nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "signal_before")
FIELDS = tuple(field.name for field in dataclasses.fields(JobRequest))


def option_of(name):
    """Return the option for an attribute of `JobRequest`."""
    return "--" + name.replace("_", "-")


def duration_s(text):
    """Return the seconds of a time limit, HH:MM:SS or D-HH:MM:SS.

    Raises
    ------
    ConfigError
        If it has another form, or is zero.
    """
    match = DURATION.fullmatch(text) if isinstance(text, str) else None
    found = [int(part or 0) for part in match.groups()] if match else [0]
    if not any(found):
        raise ConfigError(
            f"--time {text!r}: expected hours, minutes and seconds such as 02:30:00, "
            "or with days before: 1-12:00:00"
        )
    days, hours, minutes, seconds = found
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def array_indices(text):
    """Return the set of the task numbers of an array.

    Parameters
    ----------
    text : str
        "0-5", "1,3,7", "0-30:10", each also with "%N", the most tasks at a time.

    Raises
    ------
    ConfigError
        If it has another form, or too many tasks.
    """
    wrong = ConfigError(
        f"--array {text!r}: expected task numbers such as 0-5, 1,3,7 or 0-99%4 (four "
        f"at a time), at most {MOST_TASKS:,}"
    )
    if not isinstance(text, str) or not ARRAY.fullmatch(text):
        raise wrong
    found = set()
    for part in text.partition("%")[0].split(","):
        ends, _, step = part.partition(":")
        first, _, last = ends.partition("-")
        numbers = range(int(first), int(last or first) + 1, int(step or 1))
        if not numbers or len(numbers) > MOST_TASKS:
            raise wrong
        found.update(numbers)
    if len(found) > MOST_TASKS:
        raise wrong
    return found


def _require_count(option, value):
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{option} {value!r}: expected a number of at least 1")


def _require_form(option, value, pattern, expected):
    if value is None:
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigError(f"{option} {value!r}: expected {expected}")


def _require_image(name):
    if not isinstance(name, str) or name.startswith("-"):
        raise ConfigError(f"--container {name!r}: expected a file or a URL")
    if not IMAGE_URL.fullmatch(name) and not os.path.exists(name):
        raise ConfigError(f"--container {name!r}: no such image")
