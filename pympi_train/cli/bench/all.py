"""``bench all``: everything a training does, as one JSON file."""

import os
import time
from contextlib import contextmanager, suppress

from pympi_train.cli import add_common
from pympi_train.cli.bench.options import BACKENDS, add_choice
from pympi_train.errors import UserError

ABOUT = (
    "Time everything that a training does on this machine, each part by itself: "
    "start-up, hot loops beside the measured triad and matrix product, exchange, "
    "steps, input and checkpoints; with a description of the machine, and joules where "
    "it counts them. Start it with mpirun or srun for several ranks. bench compare "
    "compares two results. Takes about two minutes."
)
_starts: dict[str, float] = {}  # seconds of this process's start, by part


def add_arguments(kinds):
    """Add the parser of ``bench all``."""
    parser = kinds.add_parser(
        "all", help="everything, as one JSON file, under mpirun", description=ABOUT
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and few samples, in seconds: to try the command",
    )
    parser.add_argument("--output", metavar="FILE", help="write the JSON to FILE")
    parser.add_argument(
        "--folder",
        default=".",
        help="on the file system to time; all ranks see it (the current folder)",
    )
    add_choice(parser, "--backend", BACKENDS, "auto")
    add_common(parser, run)
    parser.set_defaults(within=_timed_start)


@contextmanager
def _timed_start(args):
    """Start MPI and load what a training needs, timed; then run the command."""
    _starts["python"] = _age_s()
    began_s = time.perf_counter()
    with suppress(UserError):  # the command finds it again, and explains it
        from pympi_train.comm import mesh

        mesh.world()
        started_s = time.perf_counter()
        _starts["mpi"] = started_s - began_s
        from pympi_train.bench.suite import run as suite  # noqa: F401

        _starts["imports"] = time.perf_counter() - started_s
    yield


def _age_s():
    """Return the seconds since this process was started, to 10 ms."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        began = int(file.read().rpartition(")")[2].split()[19])  # field 22, in ticks
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(now_s - began / os.sysconf("SC_CLK_TCK"), 0.01)


def run(args, comm):
    """Time everything; return the result."""
    from pympi_train.bench.suite.run import measure_all
    from pympi_train.comm.checks import on_root

    on_root(comm, lambda: _require_output(args.output))
    found = measure_all(
        comm, args.folder, quick=args.quick, backend=args.backend, starts=_starts
    )
    on_root(comm, lambda: _write(found, args.output))
    if comm.rank == 0 and not args.json:
        from pympi_train.bench.suite.text import result_lines
        from pympi_train.runs.speech import say

        for line in result_lines(found):
            say(line)
        if args.output:
            say(f"wrote {args.output}")
    return found


def _require_output(path):
    """Refuse a file that cannot be written before minutes of measuring."""
    from pympi_train.errors import DataError

    if path is None:
        return
    if os.path.isdir(path):
        raise DataError(f"--output {path}: is a folder; name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK):
        raise DataError(f"--output {path}: the folder {folder} cannot be written")


def _write(found, path):
    if path is None:
        return
    import json

    from pympi_train.runs.output import finite, replacing

    text = json.dumps(finite(found), indent=1, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
