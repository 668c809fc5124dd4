"""The command line: one module per command, each with ``add_arguments`` and ``run``.

Ten thousand ranks may import it from one file system. A call therefore imports only
what it needs, and no other command.
"""

import argparse
import importlib
import os
import sys

from pympi_train import __version__
from pympi_train.errors import RemoteRankError, UserError

COMMANDS = {
    "train": "train a model by a configuration file",
    "check": "describe the training of a configuration file, and its time and memory",
    "evaluate": "compute the metrics of a trained model on a file",
    "predict": "predict for the rows of a file",
    "launch": "start the ranks of a training, and start them again when they die",
    "scaling": "measure how the training step scales, and why not better",
    "plan": "find the fastest strategy on more ranks, before a job is queued",
    "time-to-score": "measure seconds and samples to a score, by ranks and batch size",
    "search": "train with other values, and find the best by cross-validation",
    "lr-range": "find a range of learning rates by one short run over growing ones",
    "resize": "let ranks join or leave a training that runs",
    "pool": "train many configurations on the ranks of one MPI job",
    "plot": "draw the learning curves of a training",
    "trace": "name the straggler and the critical path of a training's trace",
    "checkpoint": "list, show, verify, compare and export checkpoints",
    "data": "look at data files, check, convert, split and make them",
    "bench": "time the hot loops on this machine",
    "slurm": "write and submit a batch script for SLURM",
}
INTERRUPTED = 130  # as shells report SIGINT


def main(argv=None):
    """Run ``pympi-train``; return its exit status.

    - 0: success.
    - 2: an error that the user can fix; one rank prints it in one line. Also findings.
    - 1: any other error, with the traceback of the rank that failed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser(argv).parse_args(argv)
    if "finish" in args:
        args.finish(args)
    if "within" not in args:
        return _run(args)
    with args.within(args):
        status = _run(args)
    if "leave" in args:
        args.leave(status)
    return status


def _run(args):
    """Run a command; return its exit status."""
    if not getattr(args, "needs_mpi", True):
        return _run_alone(args)
    try:
        from pympi_train.comm import mesh  # after parsing: --help needs no MPI

        comm = mesh.world()
    except UserError as error:
        return _refuse(error, args)
    try:
        result = args.run(args, comm)
    except KeyboardInterrupt:
        return _interrupted(comm)
    except Exception as error:
        return _fail(error, args, mesh.world())
    return _finish(result, args, mesh.world().rank == 0)


def _run_alone(args):
    """Run a command that starts no MPI, in an ordinary process."""
    is_speaker = _launched_first()
    if not is_speaker:  # one of several: the first does the work
        return 0
    try:
        result = args.run(args)
    except KeyboardInterrupt:
        print("pympi-train: interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except UserError as error:
        return _complain(error, args, is_speaker)
    return _finish(result, args, is_speaker)


def _finish(result, args, is_speaker):
    """Print the result if that is asked for; return the exit status."""
    if args.json and is_speaker:
        import json

        from pympi_train.runs.output import finite
        from pympi_train.runs.speech import say

        try:
            say(json.dumps(finite(result), allow_nan=False))
        except UserError as error:
            return _complain(error, args, True)
    return getattr(args, "status", 0)  # that of a command with findings


def _parser(argv):
    parser = _Parser(
        prog="pympi-train", description="Train models across MPI ranks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    # A parser looks up translations in files: those of other commands are not made.

    def made(prog, **how):
        return _Parser(prog=prog, **how) if prog.split()[-1] in argv else None

    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", parser_class=made
    )
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in argv:
            module = "pympi_train.cli." + name.replace("-", "_")
            importlib.import_module(module).add_arguments(command)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints usage, help and version on one rank only, before MPI has started."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=_help_formatter, **kwargs)

    def _print_message(self, message, file=None):
        if _launched_first():
            super()._print_message(message, file)


def _help_formatter(prog):
    """Set the width: to find it, argparse imports shutil and compression modules."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns or 80)
    except (OSError, ValueError):
        columns = 80
    return argparse.HelpFormatter(prog, width=max(columns, 20) - 2)


def add_common(parser, run):
    """Add the options of every command, and set the function that runs it."""
    parser.add_argument(
        "--json", action="store_true", help="end standard output with one JSON object"
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of any error"
    )
    parser.set_defaults(run=run)


def _fail(error, args, comm):
    from pympi_train.comm.checks import is_agreed
    from pympi_train.comm.watch.abort import abort, all_leave

    if not is_agreed(error, comm):
        # Often every rank finds the same user error independently.
        if not (isinstance(error, UserError) and all_leave(comm)):
            abort(comm, error)
    if isinstance(error, UserError):
        return _complain(error, args, comm.rank == 0)
    if comm.rank == 0:
        if isinstance(error, RemoteRankError):
            sys.stderr.write(error.traceback)
        else:
            _print_traceback(error)
            error = f"rank 0: {type(error).__name__}: {error}"
        print(f"pympi-train: {error}", file=sys.stderr, flush=True)
    return 1


def _interrupted(comm):
    """Exit at once: ranks were interrupted at different points, or only one was."""
    if comm.rank == 0:
        print("pympi-train: interrupted", file=sys.stderr, flush=True)
    if comm.size > 1:
        from pympi_train.comm.watch.abort import end

        end(INTERRUPTED)
    return INTERRUPTED


def _refuse(error, args):
    """Report an error if MPI could not start: ranks cannot communicate."""
    is_speaker = _launched_first()
    if not is_speaker:
        # The launcher ends all ranks when one exits: let rank 0 report first.
        import time

        from pympi_train.comm.watch.abort import SPEECH_S

        time.sleep(SPEECH_S)
    return _complain(error, args, is_speaker)


def _complain(error, args, is_speaker):
    if is_speaker:
        from pympi_train.runs.speech import one_line

        if args.traceback:
            _print_traceback(error)
        # A file's name may have a line break.
        print(one_line(f"pympi-train: {error}"), file=sys.stderr, flush=True)
    return 2


def _print_traceback(error):
    import traceback

    traceback.print_exception(error)


def _launched_first():
    """Return whether this process is rank 0 by the launcher: MPI is not available."""
    from pympi_train.comm.launcher import launched_rank

    return launched_rank(os.environ) == 0
