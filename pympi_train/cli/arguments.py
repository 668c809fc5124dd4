"""Arguments, and their checks, that several commands share."""

import argparse
import os

LIMIT = 2**63  # of the integers of NumPy and of files


def whole_number(least=1):
    """Return a function that reads a whole number of at least ``least``.

    For ``type`` of ``add_argument``, which prints what the function complains of.
    """

    def number(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or value >= LIMIT:
            below = " and below 2^63" if value >= LIMIT else ""
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least}{below}, got {text!r}"
            )
        return value

    return number


def whole_numbers(least=1):
    """Return a function that reads whole numbers with commas in between, each once."""
    number = whole_number(least)

    def numbers(text):
        try:
            return list(dict.fromkeys(map(number, text.split(","))))
        except argparse.ArgumentTypeError as error:
            several = "write several with commas, as 1,2,4"
            raise argparse.ArgumentTypeError(f"{error}; {several}") from None

    return numbers


def add_launching(parser, more="", told=""):
    """Add the arguments of commands that start ranks again and again to measure.

    ``more`` is added to the values of ``--launcher``, and ``told`` to what they mean.
    """
    parser.add_argument(
        "--cores-per-rank",
        type=whole_number(),
        help="cores for each rank (in SLURM --cpus-per-task; else those of the node "
        "divided by the largest number of ranks that fits)",
    )
    parser.add_argument(
        "--launcher",
        default="auto",
        metavar=f"auto|mpirun|srun{more}|COMMAND",
        help="what starts the ranks; a command with its options, such as 'mpirun "
        f"--host a,b', binds them by itself{told} (%(default)s: srun in a SLURM job, "
        "else mpirun)",
    )


def require_one_process(command):
    """Raise LaunchError if a command that starts ranks is one of several ranks."""
    from pympi_train.comm.launcher import outer_launcher
    from pympi_train.errors import LaunchError

    outer = outer_launcher(os.environ)
    if outer:
        raise LaunchError(
            f"{command} starts the ranks itself, but is one of several processes "
            f"({outer}): leave out mpirun or srun"
        )
