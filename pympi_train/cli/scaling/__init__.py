"""``pympi-train scaling``: measure how the training step scales, and why not better."""

import argparse
import json
import os
import sys

from pympi_train.cli import add_common
from pympi_train.cli.arguments import (
    add_launching,
    require_one_process,
    whole_number,
    whole_numbers,
)
from pympi_train.cli.slurm import REQUEST
from pympi_train.cli.train import add_config, read_config

WITH_SLURM = "(with --launcher slurm)"
OF_JOBS = ("ntasks_per_node", "gpus_per_node", "time", "partition", "account")


def add_arguments(parser):
    """Add the arguments of ``scaling``."""
    add_config(parser)
    find_config = parser.get_default("finish")
    parser.add_argument(
        "--ranks",
        metavar="N,...",
        type=whole_numbers(),
        default=[1, 2],
        help="numbers of ranks, such as 1,2,4,8 (1,2)",
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
    add_launching(
        parser, "|slurm", "; slurm submits a job for each number of ranks, and waits"
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
    _add_job_options(parser)
    # For the ranks that it starts: what to measure, and where to write it.
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    add_common(parser, run)
    parser.set_defaults(needs_mpi=False, finish=lambda args: _choose(args, find_config))


def _add_job_options(parser):
    """Add those options of ``slurm`` that jobs of a study have."""
    for name, kind, metavar, about in REQUEST:
        if name in OF_JOBS:
            option, help = "--" + name.replace("_", "-"), f"{about} {WITH_SLURM}"
            parser.add_argument(option, type=kind, metavar=metavar, help=help)
    help = f"environment modules to load {WITH_SLURM}"
    parser.add_argument("--module", metavar="NAME", nargs="+", help=help)
    help = f"for srun --mpi; default: the one that fits MPI {WITH_SLURM}"
    parser.add_argument("--mpi", metavar="PLUGIN", help=help)


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
    from pympi_train.launch.launches import LaunchInterrupted

    require_one_process("scaling")
    path, base, about, ranks, cases = _plan(args)
    if args.launcher == "slurm":
        from pympi_train.cli.scaling.jobs import prepare_jobs

        study, measure = prepare_jobs(args, path, about, cases, _say)
    else:
        _refuse_job_options(args)
        study, measure = _prepare_launches(args, path, base, about, ranks, cases)
    try:
        with study.alone():
            n_failed = measure(_say)
    except LaunchInterrupted as error:
        _say(f"ended by {error}: the same command goes on")
        args.status = 75
        return study.content
    return _conclude(args, study, n_failed)


def _plan(args):
    """Return path and Config; what tells the study from others; ranks and cases."""
    import time
    from pathlib import Path

    from pympi_train.config.files import ConfigFile
    from pympi_train.scaling.study import plan
    from pympi_train.scaling.study.record import SCHEMA, settings_digest

    file = ConfigFile.read(args.config)
    configure = lambda overrides=(): file.parse([*args.set, *overrides])  # noqa: E731
    ranks = sorted(args.ranks)
    modes = list(plan.MODES) if args.mode == "both" else [args.mode]
    strategies = plan.parse_strategies(args.strategies)
    base = configure()
    cases, left_out = plan.plan_cases(configure, ranks, modes, strategies, args.repeats)
    for line in left_out:
        _say(f"not measured: {line}")
    about = {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": Path(file.path).name,
        "config_hash": settings_digest(file.text, args.set),
    }
    return file.path, base, about, ranks, cases


def _prepare_launches(args, path, base, about, ranks, cases):
    """Return the Study, and a function that measures by launches of this process."""
    from pympi_train.backends.machine import describe_machine
    from pympi_train.launch.cores import cores_of, require_tasks
    from pympi_train.launch.launches import Launches, choose_launcher
    from pympi_train.scaling.study.record import Study
    from pympi_train.scaling.study.run import measure_cases

    cores = cores_of(ranks, args.cores_per_rank, os.environ)
    launcher, family = choose_launcher(args.launcher, os.environ)
    machine = describe_machine(mpi=launcher.about)
    if family == "srun":
        require_tasks(ranks, os.environ)
        del machine["affinity"], machine["cgroup"]  # of the batch step, not of ranks
    settings = {"steps": args.steps, "cores_per_rank": cores}
    own = {"machine": machine, "mpi": launcher.about, "settings": settings}
    study = Study(args.output, {**about, **own})
    _say(f"{launcher}, {cores} cores a rank, {len(cases)} launches: {args.output}")

    def words(case):
        """Return the words of the launch of a case; of the exchanges if it is None."""
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
    return study, lambda say: measure_cases(study, cases, launches, words, say)


def _refuse_job_options(args):
    from pympi_train.errors import ConfigError
    from pympi_train.slurm.request import option_of

    for name in (*OF_JOBS, "module", "mpi"):
        if getattr(args, name) is not None:
            raise ConfigError(f"{option_of(name)} is for --launcher slurm")


def _gradient_bytes(study):
    found = [m for m in study.content["measurements"] if m["error"] is None]
    return max(m["gradient_bytes"] for m in found)


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
