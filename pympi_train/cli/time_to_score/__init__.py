"""``pympi-train time-to-score``: seconds to a validation score, by ranks and batch."""

import os

from pympi_train.cli import add_common
from pympi_train.cli.arguments import (
    add_launching,
    require_one_process,
    whole_numbers,
)
from pympi_train.cli.train import add_config

METRICS = ("accuracy", "validation_loss", "train_loss", "rmse", "r2")
RATES = ("none", "linear", "sqrt")


def add_arguments(parser):
    """Add the arguments of ``time-to-score``."""
    add_config(parser)
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="what the score is of ([train] monitor)",
    )
    parser.add_argument(
        "--score",
        metavar="VALUE",
        type=float,
        help="end each training after the first epoch that reaches it ([train] target)",
    )
    parser.add_argument(
        "--ranks",
        metavar="N,...",
        type=whole_numbers(),
        default=[1, 2],
        help="numbers of ranks (1,2)",
    )
    parser.add_argument(
        "--batch-sizes",
        metavar="ROWS,...",
        type=whole_numbers(),
        help="rows of a global batch ([train] batch_size)",
    )
    parser.add_argument(
        "--seeds",
        metavar="N,...",
        type=whole_numbers(0),
        help="a training of each seed ([train] seed)",
    )
    parser.add_argument(
        "--scale-rate",
        choices=RATES,
        default=RATES[0],
        help="learning rate of other batch sizes: the same, in proportion to the batch "
        "size, or to its root (%(default)s)",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        help="where the trainings are kept: those that are finished are not run again "
        "(beside [output] directory)",
    )
    add_launching(parser)
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False)


def run(args):
    """Measure; print the table; return the content of time-to-score.json."""
    from pympi_train.launch.cores import cores_of
    from pympi_train.launch.launches import (
        Launches,
        LaunchInterrupted,
        choose_launcher,
    )
    from pympi_train.runs.speech import counted, say_progress
    from pympi_train.scaling.results import measure, table
    from pympi_train.scaling.results.critical import samples_fit

    require_one_process("time-to-score")
    points, path = _points(args)
    cores = cores_of(args.ranks, args.cores_per_rank, os.environ)
    launcher, family = choose_launcher(args.launcher, os.environ)
    about = _about(args, path, launcher, cores)
    folder = os.path.dirname(points[0].config.output.directory)
    if n_more := table.replaced_results(folder, path, points):
        say_progress(
            f"{folder}/{table.RESULTS_JSON} will lack {counted(n_more, 'result')} of "
            "other settings; their trainings stay, and are read if these are given too"
        )
    rows, written = [], None
    try:
        with Launches(launcher, family, cores) as launches:
            for _, row in measure.measure_results(points, path, launches, say_progress):
                rows.append(row)
                written = table.save_results(folder, about, rows)
    except LaunchInterrupted as error:
        say_progress(f"ended by {error}: the same command goes on")
        args.status = 75
    else:
        args.status = 1 if any(row["error"] is not None for row in rows) else 0
    if written and not args.json:
        _print(rows, written)
    return {**about, "results": rows, "fit": samples_fit(rows)}


def _about(args, path, launcher, cores):
    import time

    from pympi_train.backends.threads import affinity

    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": os.path.abspath(path),
        "launcher": str(launcher),
        "cores": len(affinity()),
        "cores_per_rank": cores,
        "scale_rate": args.scale_rate,
    }


def _print(rows, written):
    from pympi_train.runs.speech import say
    from pympi_train.scaling.results import table

    for line in (*table.results_table(rows), "", *table.describe_results(rows)):
        say(line)
    say(f"written  {written}")


def _points(args):
    """Return the ScorePoints and the path of the configuration file."""
    from pympi_train.config.files import ConfigFile
    from pympi_train.scaling.results.points import points_to_measure

    file = ConfigFile.read(args.config)
    points = points_to_measure(
        file.parse,
        ranks=args.ranks,
        overrides=args.set,
        batch_sizes=args.batch_sizes,
        seeds=args.seeds,
        metric=args.metric,
        score=args.score,
        scale_rate=args.scale_rate,
        directory=args.directory and os.path.abspath(args.directory),
    )
    return points, file.path
