"""The command line: one module a command, each with ``add_parser`` and ``run``."""

import argparse
import json
import os
import sys
import time
import traceback

from pympi_train import __version__
from pympi_train.cli import bench, evaluate, predict, train
from pympi_train.errors import RemoteRankError, UserError

COMMANDS = (train, evaluate, predict, bench)
SPEECH_S = 1.0


def main(argv=None):
    """Run ``pympi-train``; return its exit status.

    0: done. 2: something the user can mend, said in one line by one rank. 1: anything
    else, with the traceback of the rank that failed.
    """
    args = _parser().parse_args(argv)
    if "finish" in args:
        args.finish(args)
    try:
        from pympi_train.comm import mesh  # after parsing: --help needs no MPI

        comm = mesh.world()
    except UserError as error:
        return _refuse(error, args)
    try:
        result = args.run(args, comm)
    except Exception as error:
        return _fail(error, args, comm)
    if args.json and comm.rank == 0:
        from pympi_train.train.output import finite

        print(json.dumps(finite(result), allow_nan=False), flush=True)
    return 0


def _parser():
    parser = _Parser(
        prog="pympi-train", description="Train models across MPI ranks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints usage, help and version on one rank alone, before MPI has started."""

    def _print_message(self, message, file=None):
        if _launched_first():
            super()._print_message(message, file)


def add_common(parser, run):
    """Add what every command takes, and say what runs it."""
    parser.add_argument(
        "--json", action="store_true", help="end standard output with one JSON object"
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of any error"
    )
    parser.set_defaults(run=run)


def _fail(error, args, comm):
    from pympi_train.comm.abort import abort, all_leave

    if comm.size > 1 and not getattr(error, "agreed", False):
        # What the user can mend is often found by every rank on its own.
        if not (isinstance(error, UserError) and all_leave(comm)):
            abort(comm, error)
    if isinstance(error, UserError):
        return _complain(error, args, comm.rank == 0)
    if comm.rank == 0:
        if isinstance(error, RemoteRankError):
            sys.stderr.write(error.traceback)
        else:
            traceback.print_exception(error)
            error = f"rank 0: {type(error).__name__}: {error}"
        print(f"pympi-train: {error}", file=sys.stderr, flush=True)
    return 1


def _refuse(error, args):
    """Complain where MPI could not start, so that no rank knows of the others."""
    is_speaker = _launched_first()
    if not is_speaker:
        # The launcher ends all ranks when the first leaves: let one speak before.
        time.sleep(SPEECH_S)
    return _complain(error, args, is_speaker)


def _complain(error, args, is_speaker):
    if is_speaker:
        if args.traceback:
            traceback.print_exception(error)
        print(f"pympi-train: {error}", file=sys.stderr, flush=True)
    return 2


def _launched_first():
    """Whether the launcher calls this process rank 0: MPI itself is no help here."""
    from pympi_train.comm.launcher import launched_rank

    return launched_rank(os.environ) == 0
