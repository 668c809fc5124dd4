"""``pympi-train bench``: time updates, exchanges, steps and reads on this machine."""

from pympi_train.cli.bench import (
    all,
    checkpoint,
    compare,
    exchange,
    io,
    kernels,
    optimizer,
    step,
)


def add_arguments(parser):
    """Add a parser for each benchmark."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    every = (optimizer, step, exchange, kernels, io, checkpoint, all, compare)
    for benchmark in every:
        benchmark.add_arguments(kinds)
