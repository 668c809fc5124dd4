"""``pympi-train time-to-score``: seconds to a validation score, by ranks and batch."""

import os
import sys

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_numbers
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
    parser.add_argument(
        "--launcher",
        metavar="COMMAND",
        help="command that starts ranks, with its options (srun in a SLURM job, else "
        "the mpirun of the MPI library)",
    )
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False)


def run(args):
    """Measure; print the table; return the content of time-to-score.json."""
    import time

    from pympi_train.comm.launcher import outer_launcher
    from pympi_train.errors import LaunchError
    from pympi_train.launch.launchers import find_launcher
    from pympi_train.runs.speech import say
    from pympi_train.scaling.results import measure, table
    from pympi_train.scaling.results.critical import samples_fit

    outer = outer_launcher(os.environ)
    if outer:
        raise LaunchError(
            f"time-to-score starts the ranks itself, but is one of several processes ("
            f"{outer}): leave out mpirun or srun"
        )
    points, path = _points(args)
    launcher = find_launcher(args.launcher, os.environ)
    threads = measure.threads_of_each(args.ranks, os.environ)
    about = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": path,
        "launcher": str(launcher),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": threads,
        "scale_rate": args.scale_rate,
    }
    folder = os.path.dirname(points[0].config.output.directory)
    tell = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    rows = []
    for _, row in measure.measure_results(
        points, path, launcher, threads=threads, say=tell
    ):
        rows.append(row)
        written = table.save_results(folder, about, rows)
    if not args.json:
        for line in (*table.results_table(rows), "", *table.describe_results(rows)):
            say(line)
        say(f"written  {written}")
    args.status = 1 if any(row["error"] is not None for row in rows) else 0
    return {**about, "results": rows, "fit": samples_fit(rows)}


def _points(args):
    """Return the ScorePoints and the path of the configuration file."""
    from functools import partial
    from pathlib import Path

    from pympi_train.config import config
    from pympi_train.paths import expanded
    from pympi_train.scaling.results.points import points_to_measure

    path = expanded(args.config)
    text = config.read_text(path)
    parse = partial(config.parse, text, where=path, folder=Path(path).parent)
    points = points_to_measure(
        lambda settings: parse(overrides=settings),
        ranks=args.ranks,
        overrides=args.set,
        batch_sizes=args.batch_sizes,
        seeds=args.seeds,
        metric=args.metric,
        score=args.score,
        scale_rate=args.scale_rate,
        directory=args.directory and os.path.abspath(args.directory),
    )
    return points, path
