"""``pympi-train resize``: let ranks of a training that runs join or leave."""

import argparse

from pympi_train.cli import add_common


def add_arguments(parser):
    parser.add_argument("directory", metavar="RUN_DIR", help="its run directory")
    parser.add_argument(
        "ranks",
        metavar="RANKS",
        type=_number,
        help="number of ranks of the job that train from then on",
    )
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False)


def _number(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1, found {text!r}"
        )
    return int(text)


def run(args):
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
