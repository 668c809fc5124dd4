"""``pympi-train resize``: let ranks of a training that runs join or leave."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number


def add_arguments(parser):
    """Add the arguments of ``resize``."""
    parser.add_argument("directory", metavar="RUN_DIR", help="its run directory")
    parser.add_argument(
        "ranks",
        metavar="RANKS",
        type=whole_number(),
        help="number of ranks of the job that train from then on",
    )
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False)


def run(args):
    """Ask the run for another number of ranks; return what was asked for."""
    from pympi_train.paths import expanded
    from pympi_train.runs.elastic.requests import request_resize
    from pympi_train.runs.speech import counted, say

    found = request_resize(expanded(args.directory), args.ranks)
    if not args.json:
        now, then, job = found["active"], found["ranks"], found["job"]
        if now == then:
            say(f"{counted(now, 'rank')} of {job} train already")
        else:
            say(f"asked for {now} -> {then} of {counted(job, 'rank')}, within seconds")
    return found
