"""``bench step``: a whole training step."""

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.bench.options import BACKENDS, OPTIMIZERS, add_choice, add_count
from pympi_train.runs.speech import say

ABOUT = (
    "Time steps of the real training loop on random rows in memory, and report the "
    "time of each part. Start it with mpirun or srun for several ranks."
)
MODELS = ("linear", "logistic", "softmax", "mlp")
ROWS = {
    "median step": ("median_step_s", "of the slowest rank"),
    "mean step": ("mean_step_s", "over steps and ranks, of which"),
    "  compute": ("compute_s", ""),
    "  communication": ("communication_s", "with waiting for others"),
    "  update": ("update_s", ""),
}


def add_arguments(kinds):
    """Add the parser of ``bench step``."""
    parser = kinds.add_parser(
        "step", help="a whole training step, under mpirun", description=ABOUT
    )
    add_choice(parser, "--model", MODELS, "mlp")
    parser.add_argument(
        "--layers",
        type=_widths,
        default=[784, 512, 512, 10],
        help="features, hidden widths of an mlp, outputs (784,512,512,10)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(),
        default=64,
        metavar="PER_RANK",
        help="rows per rank (%(default)s)",
    )
    add_choice(parser, "--optimizer", OPTIMIZERS, "adam")
    add_count(parser, "--steps", 100, "timed steps")
    add_choice(parser, "--backend", BACKENDS, "auto")
    parser.add_argument(
        "--parallel",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="keys of [parallel], such as overlap=on",
    )
    add_common(parser, run)


def _widths(text):
    return [whole_number()(part) for part in text.split(",")]


def run(args, comm):
    """Time steps of the training loop; return what was measured."""
    from pympi_train.bench import step

    found = step.measure(
        comm,
        model=args.model,
        layers=args.layers,
        batch_size=args.batch_size,
        optimizer=args.optimizer,
        steps=args.steps,
        backend=args.backend,
        parallel=args.parallel,
    )
    if comm.rank == 0 and not args.json:
        _print_step(found)
    return found


def _print_step(found):
    layers = ",".join(map(str, found["layers"]))
    say(
        f"{found['model']} {layers}, {found['parameters']:,} parameters, "
        f"{found['batch_size']:,} rows a rank, {found['optimizer']}, "
        f"{found['steps']:,} steps"
    )
    say(
        f"ranks: {found['ranks']}, threads of each: {found['n_threads']}, "
        f"backend {found['backend']}"
    )
    if found["ranks"] > 1:
        from pympi_train.runs.terminal.descriptions import exchange_line

        say(f"exchange: {exchange_line(found['exchange'])}")
    for name, (key, note) in ROWS.items():
        say(f"{name:15} {1e3 * found[key]:10.4f} ms  {note}".rstrip())
    say(f"{'samples/s':15} {found['samples_per_s']:10,.0f}     by the median step")
