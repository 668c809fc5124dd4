"""``pympi-train search``: train with other values, and find the best."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.train import add_config, handle_signals, make_console

METHODS = ("grid", "random", "halving", "asha", "tpe")
NUMBERS = ("folds", "trials", "min_ranks", "seed")
OTHERS = ("param", "method", "metric", "lanes", "refit", "one_se")


def add_arguments(parser):
    """Add the arguments of ``search``."""
    add_config(parser)
    parser.add_argument(
        "--param",
        metavar="SECTION.KEY=VALUES",
        action="append",
        help="a key to search: values (0,1e-4), log:1e-4..1e-1:9, linear:0..1:5 or "
        "whole numbers (1..4); random, asha and tpe also take log:1e-4..1e-1",
    )
    parser.add_argument(
        "--folds",
        metavar="K",
        type=whole_number(0),
        help="parts of the rows that are held out in turn; 0: [data] validation is "
        "used (5)",
    )
    parser.add_argument(
        "--method", choices=METHODS, help="how trials are chosen (grid)"
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=whole_number(1),
        help="number of trials of random, asha and tpe; of halving, random ones",
    )
    parser.add_argument(
        "--metric",
        choices=("loss", "accuracy", "rmse", "r2"),
        help="metric of the held-out rows by which trials are compared (loss)",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        default=None,
        help="train the best trial on all rows, into the folder best",
    )
    parser.add_argument(
        "--one-se",
        action="store_true",
        default=None,
        help="prefer the simplest model within one standard error of the best",
    )
    parser.add_argument(
        "--lanes",
        choices=("auto", "on", "off"),
        help="train all trials of a linear model in one pass over the rows (auto)",
    )
    parser.add_argument(
        "--min-ranks",
        metavar="N",
        type=whole_number(1),
        help="ranks of each training at least: for rows that do not fit on one (1)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole_number(0),
        help="seed of the values of random, asha and tpe (0)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the search in [output] directory: what is done is kept",
    )
    add_common(parser, run)
    parser.set_defaults(within=handle_signals)


def run(args, comm):
    """Search; return the content of search.json."""
    import dataclasses
    from functools import partial
    from pathlib import Path

    from pympi_train.comm.checks import together
    from pympi_train.config import config
    from pympi_train.keys import section
    from pympi_train.paths import expanded
    from pympi_train.search.run import search

    with together(comm):
        args.config = expanded(args.config)
    text = config.read(args.config, comm)
    configure = partial(
        config.parse,
        text,
        where=args.config,
        folder=Path(args.config).parent,
        overrides=args.set,
    )
    with together(comm):
        in_file = dataclasses.asdict(configure().search)
        given = {name: getattr(args, name) for name in (*NUMBERS, *OTHERS)}
        given = {name: value for name, value in given.items() if value is not None}
        made_of = type(configure().search), in_file | given
        settings = section(*made_of, "[search]")
    console = make_console(args, comm)
    how = {"settings": settings, "resume": args.resume, "stop": args.stop}
    found = search(configure, comm, console=console, **how)
    if found and "interrupted" in found:
        from pympi_train.runs.recovery.signals import INTERRUPTED

        args.status = INTERRUPTED
    return found
