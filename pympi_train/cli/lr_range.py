"""``pympi-train lr-range``: find a range of learning rates."""

import argparse

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.train import add_config, make_console, read_config


def add_arguments(parser):
    """Add the arguments of ``lr-range``."""
    add_config(parser)
    parser.add_argument(
        "--from",
        metavar="RATE",
        dest="low",
        type=_rate,
        default=1e-7,
        help="learning rate of the first step (%(default)s)",
    )
    parser.add_argument(
        "--to",
        metavar="RATE",
        dest="high",
        type=_rate,
        default=10.0,
        help="learning rate of the last step (%(default)s)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=whole_number(10),
        default=200,
        help="number of steps; fewer if the loss rises (%(default)s)",
    )
    add_common(parser, run)


def _rate(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def run(args, comm):
    """Run the test; return rates, losses and the range."""
    from pympi_train.search.lr_range import lr_range

    config, console = read_config(args, comm), make_console(args, comm)
    how = {"low": args.low, "high": args.high, "n_steps": args.steps}
    return lr_range(config, comm, **how, console=console)
