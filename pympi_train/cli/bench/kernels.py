"""``bench kernels``: every hot loop of a backend."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.bench.options import BACKENDS, DTYPES, add_choice, add_count
from pympi_train.runs.speech import say

ABOUT = (
    "Time every hot loop of a backend on arrays of one size, and for comparison a "
    "plain copy of such an array. Prints the median seconds, the minimum of bytes to "
    "move, and the bandwidth as a fraction of the copy's. Run on one rank."
)


def add_arguments(kinds):
    """Add the parser of ``bench kernels``."""
    parser = kinds.add_parser(
        "kernels", help="every hot loop of a backend", description=ABOUT
    )
    add_choice(parser, "--backend", BACKENDS, "auto")
    parser.add_argument(
        "--size", type=whole_number(), help="elements (10000000; on a GPU 67108864)"
    )
    add_choice(parser, "--dtype", DTYPES, "float32")
    add_count(parser, "--repeats", 10, "timings of each")
    add_common(parser, run)


def run(args, comm):
    """Time each hot loop beside a copy; return what was measured."""
    from pympi_train.bench import kernels
    from pympi_train.comm.devices import choose_backend
    from pympi_train.comm.mesh import set_threads

    set_threads(comm)
    backend = choose_backend(comm, args.backend)
    size = args.size or (2**26 if backend.ops.ON_DEVICE else 10**7)
    found = kernels.measure(backend, size, args.dtype, args.repeats)
    if comm.rank == 0 and not args.json:
        say(f"backend {found['backend']} ({found['reason']})")
        rate = found["copy_bytes_per_s"] / 1e9
        say(f"{size:,} elements, {args.dtype}; a copy moves {rate:.2f} GB/s")
        say(f"{'':32} {'median':>12} {'GB/s':>9}  of a copy")
        for name, one in found["kernels"].items():
            say(
                f"{name:32} {1e3 * one['median_s']:9.4f} ms "
                f"{one['bytes_per_s'] / 1e9:9.2f}  {100 * one['share_of_copy']:5.0f} %"
            )
    return found
