"""``pympi-train evaluate``: measure a trained model on a file."""

import argparse
import os

from pympi_train.cli import add_common
from pympi_train.runs.speech import say, say_progress

SEEN = (
    "remark: this is the file of the training, and most of its rows were trained on; "
    "the training's validation metrics, or another file, say more"
)


def add_arguments(parser):
    """Add the arguments of ``evaluate``."""
    add_run_arguments(parser)
    parser.add_argument(
        "--target",
        metavar="NAME",
        nargs="+",
        help="name of the target, if it differs from training; the file of the target, "
        "if --data is .npy",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights",
        metavar="NAME",
        nargs="+",
        help="name of the weights, if it differs from training; their file, if --data "
        "is .npy",
    )
    weights.add_argument(
        "--no-weights",
        action="store_true",
        help="count all rows alike, even if the model was trained with weights",
    )
    parser.add_argument(
        "--rows",
        metavar="CONDITION",
        help="use only rows for which it is true: \"age >= 18 and country == 'NO'\"",
    )
    add_common(parser, run)


def add_run_arguments(parser):
    parser.add_argument(
        "directory",
        metavar="RUN_DIR",
        nargs="?",
        help="[output] directory of a training, or a checkpoint of it",
    )
    parser.set_defaults(finish=lambda args: _find_directory(args, parser))
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        required=True,
        help="files, patterns or folders in a format that train reads, with the "
        "features of the training",
    )
    parser.add_argument(
        "--features",
        metavar="NAME",
        nargs="+",
        help="names of the columns or arrays, if they differ from training",
    )
    parser.add_argument(
        "--format",
        help="format of the files (csv, parquet, npz), if their names do not say it",
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a .csv has the column names (as in training)",
    )
    parser.add_argument(
        "--zero-based",
        action=argparse.BooleanOptionalAction,
        help="whether indices of an .svm start at 0 (as in training)",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "numpy", "numba", "cuda"),
        default="auto",
        help="may differ from that of the training (%(default)s)",
    )


def _find_directory(args, parser):
    """Find RUN_DIR even after --data, which takes all words that follow it."""
    if args.directory is None and len(args.data) > 1:
        args.directory = args.data.pop()
    if args.directory is None:
        parser.error("the following arguments are required: RUN_DIR")


def reading(args):
    """Return the reading options that were given, as arguments for `Run`."""
    names = {name: vars(args).get(name) for name in ("features", "target", "weights")}
    for name, value in names.items():
        names[name] = value[0] if value and len(value) == 1 else value
    how = {"header": args.header, "zero_based": args.zero_based}
    return {**names, **how, "format_": args.format}


def run(args, comm):
    """Print the metrics of a trained model; return them."""
    from pympi_train.comm.checks import together
    from pympi_train.data.formats.read import target_is_file
    from pympi_train.paths import beside, expanded, in_each
    from pympi_train.runs.inference import Run

    how = reading(args) | {"need_weights": not args.no_weights, "rows": args.rows}
    for key in ("target", "weights"):
        if target_is_file(args.data, how[key], args.format):
            with together(comm):  # else it is taken relative to the data's folder
                how[key] = in_each(
                    how[key],
                    lambda name: beside(os.getcwd(), expanded(name, f"--{key}")),
                )
    run = Run(args.directory, comm, args.backend)
    found = run.evaluate(args.data, **how)
    is_said = args.features or args.target
    if comm.rank == 0:
        is_seen = not is_said and run.has_seen(args.data, args.format)
        warn([*map("warning: {}".format, run.remarks), *[SEEN] * is_seen])
    with together(comm):
        if comm.rank == 0 and not args.json:
            _print(found)
    return found


def warn(lines):
    """Print lines to stderr."""
    for line in lines:
        say_progress(line)


def _print(found):
    targets = {"": found, **found.get("targets", {})}
    width = max(9, *map(len, found))
    for target, values in targets.items():
        for name, value in values.items():
            if name != "targets":
                text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
                say(f"{name:{width}} {text}  {target}".rstrip())
