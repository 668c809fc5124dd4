"""``pympi-train predict``: write a trained model's predictions for a file."""

from pympi_train.cli import add_common
from pympi_train.cli.evaluate import add_run_arguments, reading, warn
from pympi_train.runs.speech import counted, say


def add_arguments(parser):
    """Add the arguments of ``predict``."""
    add_run_arguments(parser)
    parser.add_argument(
        "--output", metavar="PREDS", required=True, help="a file, .npy or .csv"
    )
    parser.add_argument(
        "--proba",
        action="store_true",
        help="write the probability of each class, in the order of the classes",
    )
    add_common(parser, run)


def run(args, comm):
    """Write predictions; return where and how many."""
    from pympi_train.comm.checks import together
    from pympi_train.runs.inference import Run

    run = Run(args.directory, comm, args.backend)
    n = run.predict(args.data, args.output, proba=args.proba, **reading(args))
    if comm.rank == 0:
        warn(map("warning: {}".format, run.remarks))
    with together(comm):
        if comm.rank == 0 and not args.json:
            say(f"{counted(n, 'prediction')} in {args.output}")
    return {"samples": n, "ranks": comm.size, "output": args.output}
