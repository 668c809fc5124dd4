"""``pympi-train evaluate``: measure a trained model on a file."""

import os

from pympi_train.cli import add_common


def add_arguments(parser):
    add_run_arguments(parser)
    parser.add_argument(
        "--target", metavar="FILE", help="the target's file where --data is .npy"
    )
    add_common(parser, run)


def add_run_arguments(parser):
    parser.add_argument("directory", metavar="RUN_DIR", help="[output] directory")
    parser.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        help="rows in a format that train reads, with the same columns or arrays",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "numpy", "numba", "cuda"),
        default="auto",
        help="whatever it was trained on (%(default)s)",
    )


def run(args, comm):
    from pympi_train.runs.inference import Run

    target = args.target
    if target is not None and args.data.endswith(".npy"):
        target = os.path.abspath(target)  # else taken as beside the data
    found = Run(args.directory, comm, args.backend).evaluate(args.data, target)
    if comm.rank == 0 and not args.json:
        for name, value in found.items():
            text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
            print(f"{name:9} {text}")
    return found
