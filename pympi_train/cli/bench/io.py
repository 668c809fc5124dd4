"""``bench io``: reading rows of a file."""

from pympi_train.cli import add_common
from pympi_train.cli.bench.options import add_choice, add_count
from pympi_train.runs.speech import say

ABOUT = (
    "Write a file to FOLDER, time reads of it, and remove it. read: plain reads from "
    "start to end into a buffer. file, window, full: batches of a mapped .npy of rows "
    "of 3 KB, in the order of the file and in the orders of [data] order. Before each "
    "timing the file is dropped from the page cache of this node (posix_fadvise). "
    "times read: the median over rounds of the ratio within a round. With --format "
    "parquet or csv: a table with 257 columns of float32. pyarrow: read by it alone; "
    "matrix: and copied to rows; rows: by this package. in memory, stream: an epoch of "
    "an MLP on its rows. Run on one rank."
)


def add_arguments(kinds):
    """Add the parser of ``bench io``."""
    parser = kinds.add_parser("io", help="reading rows of a file", description=ABOUT)
    parser.add_argument("folder", metavar="FOLDER", help="on the file system to time")
    add_count(parser, "--size", 10**9, "bytes of the rows")
    add_choice(parser, "--format", ("npy", "parquet", "csv"), "npy")
    add_count(parser, "--rounds", 3, "timings of each")
    add_common(parser, run)


def run(args, comm):
    """Time reads on rank 0; return what was measured."""
    from pympi_train.bench import reading, tables
    from pympi_train.comm.checks import on_root

    def measure():
        how = args.size, args.rounds
        if args.format == "npy":
            return reading.measure(args.folder, *how)
        return tables.measure(args.folder, args.format, *how)

    found = on_root(comm, measure)
    if comm.rank == 0 and not args.json:
        (_print_io if args.format == "npy" else _print_tables)(found)
    return found


def _print_tables(found):
    say(
        f"{found['rows']:,} rows of {found['features']} features and a target, "
        f"{found['bytes']:,} bytes in memory; {found['group_rows']:,} rows a group"
    )
    for name, way in found["ways"].items():
        say(
            f"{name:10}{way['median_s']:8.3f} s, {way['cpu_s']:8.3f} s of CPU: "
            f"{way['times']:.2f} and {way['cpu_times']:.2f} times {way['beside']}"
        )


def _print_io(found):
    say(
        f"{found['bytes']:,} bytes in rows of {found['row_bytes']:,}, batches of "
        f"{found['batch_rows']}; window: {found['order_shards']} shards, windows of "
        f"{found['order_window']} rows"
    )
    cached = found["cached"]
    if cached is None:
        say("whether the page cache was empty before each timing is unknown")
    else:
        say(f"in the page cache before each timing: at most {100 * cached:.0f} %")
    for name, way in found["ways"].items():
        rate, times = way["bytes_per_s"] / 1e9, way["times_read"]
        say(f"{name:7} {rate:8.3f} GB/s  {100 * times:4.0f} % of read")
