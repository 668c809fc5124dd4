"""``pympi-train check``: describe a training, and measure its time and memory."""

from pympi_train.cli import add_common
from pympi_train.cli.train import add_config, make_console, read_config


def add_arguments(parser):
    """Add the arguments of ``check``."""
    add_config(parser)
    add_common(parser, run)


def run(args, comm):
    """Describe the training, and return the description."""
    from pympi_train.runs.tryout import try_out

    return try_out(read_config(args, comm), comm, make_console(args, comm))
