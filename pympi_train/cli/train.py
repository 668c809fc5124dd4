"""``pympi-train train``: train as a configuration file says."""

import sys
from pathlib import Path


def add_parser(commands):
    from pympi_train.cli import add_common

    parser = commands.add_parser("train", help="train as a configuration file says")
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="override keys; a value as in TOML, or a bare string",
    )
    add_common(parser, run)


def run(args, comm):
    from pympi_train.comm.checks import together
    from pympi_train.train import config, job

    text = config.read(args.config, comm)
    with together(comm):
        parsed = config.parse(
            text,
            where=args.config,
            folder=Path(args.config).parent,
            overrides=args.set,
        )
    console = None
    if comm.rank == 0:
        from pympi_train.train.console import Console

        console = Console(sys.stderr if args.json else sys.stdout)
    return job.train(parsed, comm, console)
