"""``bench optimizer``: the update of a flat parameter block."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.bench.choices import OPTIMIZERS
from pympi_train.runs.speech import say

ABOUT = (
    "Time the update of one flat block of random parameters on every available "
    "backend. For comparison, a triad a = b + s c measures the memory bandwidth. Run "
    "on one rank."
)


def add_arguments(kinds):
    """Add the parser of ``bench optimizer``."""
    parser = kinds.add_parser(
        "optimizer",
        help="the update of a flat parameter block",
        description=ABOUT,
    )
    parser.add_argument(
        "--name", choices=OPTIMIZERS, default="adam", help="(%(default)s)"
    )
    parser.add_argument(
        "--size",
        type=whole_number(),
        default=25_000_000,
        help="parameters (%(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--repeats", type=whole_number(), default=10, help="timed updates (%(default)s)"
    )
    add_common(parser, run)


def run(args, comm):
    """Time the update on each backend; return what was measured."""
    from pympi_train.bench import optimizer
    from pympi_train.comm.mesh import set_threads

    n_threads = set_threads(comm)
    found = optimizer.measure(
        args.name, args.size, dtype=args.dtype, repeats=args.repeats
    )
    if comm.rank == 0 and not args.json:
        say(
            f"{args.name}, {args.size:,} parameters, {args.dtype}, threads: {n_threads}"
        )
        for name, backend in found["backends"].items():
            share = 100 * backend["bytes_per_s"] / backend["stream_bytes_per_s"]
            say(
                f"{name:6} {1e3 * backend['median_s']:8.3f} ms "
                f"{backend['bytes_per_s'] / 1e9:7.2f} GB/s, {share:.0f} % of a triad"
            )
    return found
