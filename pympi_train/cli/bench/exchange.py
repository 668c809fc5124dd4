"""``bench exchange``: the sum of gradients over ranks."""

from pympi_train.cli import add_common
from pympi_train.cli.bench.options import add_count
from pympi_train.runs.speech import say

ABOUT = (
    "Time the sum of a block of gradients over the ranks, and for comparison MPI's own "
    "Allreduce on the same block (plain). Start it with mpirun or srun on at least two "
    "ranks. pieces: MPI in several calls. slices: each rank adds up one slice. times "
    "plain: the median over rounds of the ratio within a round; on a busy machine it "
    "differs from the ratio of the medians. plain again: a second timing of plain; its "
    "distance from 1 is the noise. Takes up to 6 s per size."
)


def add_arguments(kinds):
    """Add the parser of ``bench exchange``."""
    parser = kinds.add_parser(
        "exchange", help="the sum of gradients over ranks", description=ABOUT
    )
    add_count(parser, "--max-bytes", 100_000_000, "bytes of the largest block")
    add_count(parser, "--rounds", 20, "maximum number of timings of each method")
    add_common(parser, run)


def run(args, comm):
    """Time the sum of blocks of several sizes; return what was measured."""
    from pympi_train.bench import exchange
    from pympi_train.comm.checks import agreed_within
    from pympi_train.comm.mesh import set_threads
    from pympi_train.errors import ConfigError

    set_threads(comm)
    if comm.size == 1:
        text = "bench exchange needs at least two ranks: mpirun -n 2 pympi-train ..."
        raise agreed_within(comm, ConfigError(text))
    found = exchange.measure(comm, max_bytes=args.max_bytes, rounds=args.rounds)
    if comm.rank == 0 and not args.json:
        _print_exchange(found)
    return found


def _print_exchange(found):
    say(f"{found['ranks']} ranks, {found['dtype']}, {found['library']}")
    say(f"{'bytes':>11}  {'way':20} {'median':>12} {'GB/s':>8}  times plain")
    for size in found["sizes"]:
        for name, way in size["ways"].items():
            by = f" by {size['exchange']}" if name == "allreduce" else ""
            _print_way(size["bytes"], name, way, f"{way['times_plain']:.2f}{by}")
        for name, way in size["updates"].items():
            times = f"     {way['times_allreduce']:.2f} times allreduce + adam"
            _print_way(size["bytes"], f"{name} + adam", way, times)


def _print_way(n_bytes, name, way, times):
    say(
        f"{n_bytes:11,}  {name:20} {1e3 * way['median_s']:9.4f} ms "
        f"{way['bytes_per_s'] / 1e9:8.3f}  {times}"
    )
