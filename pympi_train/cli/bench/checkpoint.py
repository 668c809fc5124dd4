"""``bench checkpoint``: writing checkpoints."""

from pympi_train.cli import add_common
from pympi_train.cli.bench.options import add_count
from pympi_train.runs.speech import say

ABOUT = (
    "Train a perceptron with Adam whose state has --size bytes, and write checkpoints "
    "of it to FOLDER, which are removed. plain: each rank writes as much of a file, "
    "with fsync. delay: by how much a checkpoint in the background delays the steps. "
    "Start it with mpirun or srun for several ranks."
)


def add_arguments(kinds):
    """Add the parser of ``bench checkpoint``."""
    parser = kinds.add_parser(
        "checkpoint",
        help="writing checkpoints, under mpirun",
        description=ABOUT,
    )
    parser.add_argument("folder", metavar="FOLDER", help="on the file system to time")
    add_count(parser, "--size", 10**9, "bytes of the state")
    add_count(parser, "--rounds", 3, "timings of each")
    add_common(parser, run)


def run(args, comm):
    """Time checkpoints beside plain writes; return what was measured."""
    from pympi_train.bench import saving

    found = saving.measure(comm, args.folder, args.size, args.rounds)
    if comm.rank == 0 and not args.json:
        _print_checkpoint(found)
    return found


def _print_checkpoint(found):
    say(
        f"{found['bytes']:,} bytes, {found['parameters']:,} parameters, "
        f"ranks: {found['ranks']}"
    )
    say(f"plain       {found['plain_bytes_per_s'] / 1e9:8.3f} GB/s")
    rate, times = found["checkpoint_bytes_per_s"] / 1e9, found["times_plain"]
    say(f"checkpoint  {rate:8.3f} GB/s  {100 * times:4.0f} % of plain")
    say(f"step        {1e3 * found['step_s']:8.2f} ms")
    say(f"copy        {1e3 * found['copy_s']:8.2f} ms, before the next step")
    say(
        f"delay       {1e3 * found['delay_s']:8.2f} ms of all steps, "
        f"{100 * found['overhead']:.2f} % with one every 600 s"
    )
