"""Options that several benchmarks offer."""

from pympi_train.cli.arguments import whole_number

BACKENDS = ("auto", "numpy", "numba", "cuda")
OPTIMIZERS = ("gd", "sgd", "adam", "adamw")
DTYPES = ("float32", "float64")


def add_count(parser, option, default, about):
    """Add an option that is a whole number from 1."""
    about = f"{about} (%(default)s)"
    parser.add_argument(option, type=whole_number(), default=default, help=about)


def add_choice(parser, option, choices, default, about=""):
    """Add an option that is one of ``choices``."""
    about = f"{about} (%(default)s)".strip()
    parser.add_argument(option, choices=choices, default=default, help=about)
