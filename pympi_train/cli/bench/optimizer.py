"""``bench optimizer``: the update of a flat parameter block."""

from pympi_train.cli import add_common
from pympi_train.cli.bench.options import DTYPES, OPTIMIZERS, add_choice, add_count
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
    add_choice(parser, "--name", OPTIMIZERS, "adam")
    add_count(parser, "--size", 25_000_000, "parameters")
    add_choice(parser, "--dtype", DTYPES, "float32")
    add_count(parser, "--repeats", 10, "timed updates")
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
