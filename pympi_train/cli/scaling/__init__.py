"""``pympi-train scaling``: measure how the training step scales, and why not better."""

import argparse
import json
import os
import sys

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.train import add_config, read_config


def add_arguments(parser):
    """Add the arguments of ``scaling``."""
    add_config(parser)
    find_config = parser.get_default("finish")
    parser.add_argument(
        "--ranks",
        default="1,2",
        help="numbers of ranks, such as 1,2,4,8 (%(default)s)",
    )
    parser.add_argument(
        "--mode",
        choices=("strong", "weak", "both"),
        default="strong",
        help="strong: the global batch of the configuration at every number of ranks; "
        "weak: it grows with the ranks (%(default)s)",
    )
    parser.add_argument(
        "--strategies",
        metavar="all|NAME,...",
        help="values of [parallel] strategy to compare (as configured)",
    )
    parser.add_argument(
        "--repeats",
        type=whole_number(),
        default=5,
        help="launches of each case (%(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=whole_number(3),
        default=100,
        help="timed steps of a launch (%(default)s)",
    )
    parser.add_argument(
        "--cores-per-rank",
        type=whole_number(),
        help="cores for each rank (in SLURM --cpus-per-task; else those of the node "
        "divided by the largest number of ranks that fits)",
    )
    parser.add_argument(
        "--launcher",
        default="auto",
        metavar="auto|mpirun|srun|COMMAND",
        help="what starts the ranks; a command with its options, such as 'mpirun "
        "--host a,b', binds them by itself (%(default)s: srun in a SLURM job, else "
        "mpirun)",
    )
    parser.add_argument(
        "--timeout",
        type=whole_number(),
        default=3600,
        metavar="SECONDS",
        help="end of a launch that takes longer (%(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="OUT.json",
        help="file of the study; OUT.csv and OUT.html are written beside it. If it "
        "exists, what it has is not measured again (scaling.json)",
        default="scaling.json",
    )
    # For the ranks that it starts: what to measure, and where to write it.
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False, finish=lambda args: _choose(args, find_config))


def _choose(args, find_config):
    find_config(args)
    if args.measure is not None:
        args.needs_mpi, args.run = True, run_measure


def run_measure(args, comm):
    """Measure on these ranks; rank 0 writes the JSON that the study reads."""
    from pympi_train.comm.checks import together
    from pympi_train.scaling.study.exchanges import measure_exchanges
    from pympi_train.scaling.study.measure import measure_step, with_batch

    config = read_config(args, comm)
    asked = json.loads(args.measure[0])
    if "gradient_bytes" in asked:
        found = measure_exchanges(comm, asked["gradient_bytes"])
    else:
        config = with_batch(config, asked["batch_size"])
        found = measure_step(config, comm, asked["steps"], asked["cores_per_rank"])
    with together(comm):
        if comm.rank == 0:
            with open(args.measure[1], "w", encoding="utf-8") as file:
                json.dump(found, file, allow_nan=False)
    return None


def run(args):
    """Run the study; print its table, write its files and return it."""
    from pympi_train.comm.launcher import outer_launcher
    from pympi_train.errors import LaunchError
    from pympi_train.scaling.study.run import StudyInterrupted, measure_cases

    outer = outer_launcher(os.environ)
    if outer:
        raise LaunchError(
            f"scaling starts the ranks itself, but is one of several processes ({outer}"
            "): leave out mpirun or srun"
        )
    study, cases, launches, words = _prepare(args)
    try:
        with study.alone():
            n_failed = measure_cases(study, cases, launches, words, _say)
    except StudyInterrupted as error:
        _say(f"ended by {error}: the same command goes on")
        args.status = 75
        return study.content
    return _conclude(args, study, n_failed)


def _prepare(args):
    """Return the Study, its cases, the Launches, and the words of a launch."""
    from pathlib import Path

    from pympi_train.config import config as configuration
    from pympi_train.paths import expanded
    from pympi_train.scaling.study import plan
    from pympi_train.scaling.study.cores import cores_of
    from pympi_train.scaling.study.launching import choose_launcher
    from pympi_train.scaling.study.record import Study
    from pympi_train.scaling.study.run import Launches

    path = expanded(args.config)
    text = configuration.read_text(path)
    folder = Path(path).parent

    def configure(overrides=()):
        told = [*args.set, *overrides]
        return configuration.parse(text, where=path, folder=folder, overrides=told)

    ranks = plan.parse_ranks(args.ranks)
    modes = list(plan.MODES) if args.mode == "both" else [args.mode]
    strategies = plan.parse_strategies(args.strategies)
    base = configure()
    cases, left_out = plan.plan_cases(configure, ranks, modes, strategies, args.repeats)
    cores = cores_of(ranks, args.cores_per_rank, os.environ)
    launcher, family = choose_launcher(args.launcher, os.environ)
    study = Study(args.output, _about(args, base, text, path, cores, launcher))
    _say(f"{launcher}, {cores} cores a rank, {len(cases)} launches: {args.output}")
    for line in left_out:
        _say(f"not measured: {line}")

    def words(case):
        asked = {"steps": args.steps, "cores_per_rank": cores}
        overrides = list(args.set)
        if case is None:
            asked = {"gradient_bytes": _gradient_bytes(study)}
        else:
            asked["batch_size"] = case.batch_size(base.train.batch_size)
            overrides += case.overrides
        told = ["--set", *overrides] if overrides else []
        return ["scaling", path, *told, "--measure", json.dumps(asked)]

    launches = Launches(launcher, family, cores, args.timeout)
    return study, cases, launches, words


def _gradient_bytes(study):
    found = [m for m in study.content["measurements"] if m["error"] is None]
    return max(m["gradient_bytes"] for m in found)


def _about(args, config, text, path, cores, launcher):
    """Return what tells a study from others."""
    import time
    from pathlib import Path

    from pympi_train.backends.machine import describe_machine
    from pympi_train.scaling.study.record import SCHEMA, settings_digest

    return {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": Path(path).name,
        "config_hash": settings_digest(text, args.set),
        "machine": describe_machine(mpi=launcher.about),
        "mpi": launcher.about,
        "settings": {"steps": args.steps, "cores_per_rank": cores},
    }


def _conclude(args, study, n_failed):
    """Write OUT.csv and OUT.html, print the table; return the study."""
    from pathlib import Path

    from pympi_train.runs.speech import say
    from pympi_train.scaling.report.page import write_page
    from pympi_train.scaling.report.table import report_lines

    csv_path, page = (Path(args.output).with_suffix(s) for s in (".csv", ".html"))
    study.save_csv(csv_path)
    write_page(page, study.content)
    if not args.json:
        for line in report_lines(study.content):
            say(line)
    _say(f"written  {args.output}, {csv_path.name}, {page.name}")
    if n_failed:
        _say(f"{n_failed} launches failed; the same command tries them again")
        args.status = 1
    return study.content


def _say(text):
    print(text, file=sys.stderr, flush=True)
