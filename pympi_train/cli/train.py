"""``pympi-train train``: train a model by a configuration file."""

import sys
from contextlib import contextmanager

from pympi_train.cli import add_common


def add_arguments(parser):
    """Add the arguments of ``train``."""
    add_config(parser)
    parser.add_argument(
        "--resume",
        metavar="CHECKPOINT",
        nargs="?",
        const="newest",
        help="continue from the newest whole checkpoint of the run, or from this one; "
        "without one, start afresh",
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write trace.json, as [output] trace = true",
    )
    add_common(parser, run)
    parser.set_defaults(within=handle_signals)


@contextmanager
def handle_signals(args):
    """Handle signals from here on: a rank that left while MPI starts would be alone."""
    from pympi_train.runs.recovery.signals import orderly

    with orderly() as args.stop:
        yield


def add_config(parser):
    """Add the arguments for the configuration: its file, and keys to override."""
    parser.add_argument("config", metavar="CONFIG.toml", nargs="?")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="override keys; a value is TOML or a bare string",
    )
    parser.set_defaults(finish=lambda args: _find_config(args, parser))


def _find_config(args, parser):
    """Find the file even after --set, which takes all words that follow it."""
    files = [word for word in args.set if "=" not in word]
    if args.config is None and len(files) == 1:
        args.config = files[0]
        args.set.remove(files[0])
    if args.config is None:
        parser.error("the following arguments are required: CONFIG.toml")


def read_config(args, comm):
    """Return the Config for the arguments. Collective."""
    from pathlib import Path

    from pympi_train.comm.checks import together
    from pympi_train.config import config
    from pympi_train.paths import expanded

    with together(comm):
        args.config = expanded(args.config)
    text = config.read(args.config, comm)
    with together(comm):
        return config.parse(
            text,
            where=args.config,
            folder=Path(args.config).parent,
            overrides=args.set,
        )


def make_console(args, comm):
    """Return the Console on rank 0, None on other ranks."""
    if comm.rank != 0:
        return None
    from pympi_train.runs.startup import process_age_s
    from pympi_train.runs.terminal.console import Console

    return Console(sys.stderr if args.json else sys.stdout, process_age_s())


def run(args, comm):
    """Train; return the result."""
    if args.trace:
        args.set.append("output.trace=true")
    config = read_config(args, comm)
    if config.elastic.survive and comm.size > 1:
        result = _survive(args, config, comm)
    else:
        from pympi_train.runs import job

        console = make_console(args, comm)
        result = job.train(config, comm, console, args.resume, args.stop)
    if result is not None and "interrupted" in result:
        from pympi_train.runs.recovery.signals import INTERRUPTED

        args.status = INTERRUPTED
    return result


def _survive(args, config, comm):
    from pympi_train.comm.watch.survivors import leave_without_mpi, require_ulfm
    from pympi_train.runs import survive

    require_ulfm(comm)
    args.leave = leave_without_mpi
    consoles = lambda ranks: make_console(args, ranks)  # noqa: E731
    return survive.train_with_survivors(config, comm, consoles, args.resume, args.stop)
