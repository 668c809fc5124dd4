"""``pympi-train plot``: draw the learning curves of a training."""

from pympi_train.cli import add_common
from pympi_train.runs.speech import say


def add_arguments(parser):
    """Add the arguments of ``plot``."""
    parser.add_argument("directory", metavar="RUN_DIR", help="[output] directory")
    parser.add_argument(
        "--output",
        metavar="CURVES.png",
        help="file for the picture (curves.png in RUN_DIR)",
    )
    add_common(parser, run)


def run(args, comm):
    """Draw the learning curves; return the path of the picture."""
    from pympi_train.comm.checks import together
    from pympi_train.paths import expanded
    from pympi_train.runs.curves import draw_curves, read_metrics

    path = None
    with together(comm):
        if comm.rank == 0:
            directory = expanded(args.directory)
            records = read_metrics(directory)
            to = args.output and expanded(args.output)
            path = str(draw_curves(records, directory, to))
            if not args.json:
                say(path)
    return {"output": path}
