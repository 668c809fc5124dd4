"""``pympi-train scaling``: measure how the training step scales, and why not better."""

import argparse
import json
import os
from typing import NamedTuple

from pympi_train.cli import add_common
from pympi_train.cli.arguments import require_one_process
from pympi_train.cli.scaling.options import (
    add_job_options,
    add_study_options,
    refuse_job_options,
)
from pympi_train.cli.train import add_config, read_config
from pympi_train.errors import ConfigError
from pympi_train.runs.speech import counted, say, say_progress


class PlannedStudy(NamedTuple):
    """What a study is to measure.

    Attributes
    ----------
    path, text_digest : str
        Of the configuration file.
    batch_size : int
        Of the configuration.
    about : dict
        What tells the study from others: schema, created, config, config_hash; and
        ``refused``, by strategy.
    ranks : list of int
        Ascending.
    cases : list of StudyCase
    """

    path: str
    text_digest: str
    batch_size: int
    about: dict
    ranks: list
    cases: list


def add_arguments(parser):
    """Add the arguments of ``scaling``."""
    add_config(parser)
    find_config = parser.get_default("finish")
    add_study_options(parser)
    add_job_options(parser)
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
    with together(comm):
        if comm.rank == 0:
            _require_text(args.config, asked["text_digest"])
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


def _require_text(path, digest):
    """Raise ConfigError if a configuration file was edited since its study began."""
    from pympi_train.config.files import ConfigFile
    from pympi_train.scaling.study.record import settings_digest

    if settings_digest(ConfigFile.read(path).text, ()) != digest:
        raise ConfigError(f"{path}: the file was edited since the study began")


def run(args):
    """Run the study; print its table, write its files and return it."""
    from pympi_train.launch.launches import LaunchInterrupted

    require_one_process("scaling")
    plan = _plan(args)
    if args.launcher == "slurm":
        from pympi_train.cli.scaling.jobs import prepare_jobs

        study, measure = prepare_jobs(args, plan, say_progress)
    else:
        refuse_job_options(args)
        study, measure = _prepare_launches(args, plan)
    try:
        with study.alone():
            n_failed = measure(say_progress)
    except LaunchInterrupted as error:
        say_progress(f"ended by {error}: the same command goes on")
        args.status = 75
        return study.content
    return _conclude(args, study, n_failed)


def _plan(args):
    """Return the PlannedStudy; say what is left out of it."""
    import time
    from pathlib import Path

    from pympi_train.config.files import ConfigFile
    from pympi_train.scaling.analysis.advice import PROPOSED
    from pympi_train.scaling.study import plan
    from pympi_train.scaling.study.record import SCHEMA, settings_digest

    file = ConfigFile.read(args.config)
    configure = lambda overrides=(): file.parse([*args.set, *overrides])  # noqa: E731
    ranks = sorted(args.ranks)
    modes = list(plan.MODES) if args.mode == "both" else [args.mode]
    base = configure()
    strategies, refused = plan.allowed_strategies(configure, args.strategies)
    cases, left_out = plan.plan_cases(configure, ranks, modes, strategies, args.repeats)
    for line in (*refused, *left_out):
        say_progress(f"not measured: {line}")
    about = {
        "schema": SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": Path(file.path).name,
        "config_hash": settings_digest(file.text, args.set),
        "refused": {
            name: plan.refused_changes(configure, name, PROPOSED) for name in strategies
        },
    }
    text = settings_digest(file.text, ())
    return PlannedStudy(file.path, text, base.train.batch_size, about, ranks, cases)


def _prepare_launches(args, plan):
    """Return the Study, and a function that measures by launches of this process."""
    from pympi_train.backends.machine import describe_machine
    from pympi_train.launch.cores import cores_of, require_tasks
    from pympi_train.launch.launches import Launches, choose_launcher
    from pympi_train.scaling.study.record import Study
    from pympi_train.scaling.study.run import measure_cases

    cores = cores_of(plan.ranks, args.cores_per_rank, os.environ)
    launcher, family = choose_launcher(args.launcher, os.environ)
    machine = describe_machine(mpi=launcher.about)
    if family == "srun":
        require_tasks(plan.ranks, os.environ)
        del machine["affinity"], machine["cgroup"]  # of the batch step, not of ranks
    settings = {"steps": args.steps, "cores_per_rank": cores}
    own = {"machine": machine, "mpi": launcher.about, "settings": settings}
    study = Study(args.output, {**plan.about, **own})
    say_progress(
        f"{launcher}, {counted(cores, 'core')} a rank, "
        f"{counted(len(plan.cases), 'launch', 'launches')}: {args.output}"
    )

    def words(case):
        """Return the words of the launch of a case; of the exchanges if it is None."""
        asked = {"text_digest": plan.text_digest}
        overrides = list(args.set)
        if case is None:
            asked["gradient_bytes"] = _gradient_bytes(study)
        else:
            asked |= {"steps": args.steps, "cores_per_rank": cores}
            asked["batch_size"] = case.batch_size(plan.batch_size)
            overrides += case.overrides
        told = ["--set", *overrides] if overrides else []
        return ["scaling", plan.path, *told, "--measure", json.dumps(asked)]

    launches = Launches(launcher, family, cores, args.timeout)
    return study, lambda say: measure_cases(study, plan.cases, launches, words, say)


def _gradient_bytes(study):
    found = [m for m in study.content["measurements"] if m["error"] is None]
    return max(m["gradient_bytes"] for m in found)


def _conclude(args, study, n_failed):
    """Write predictions, OUT.csv and OUT.html, print the table; return the study."""
    from pathlib import Path

    from pympi_train.scaling.report.grid import predict_grid
    from pympi_train.scaling.report.page import write_page
    from pympi_train.scaling.report.table import report_lines

    csv_path, page = (Path(args.output).with_suffix(s) for s in (".csv", ".html"))
    study.add_predictions(predict_grid(study.content))
    study.save_csv(csv_path)
    write_page(page, study.content)
    if not args.json:
        for line in report_lines(study.content):
            say(line)
    say_progress(f"written  {args.output}, {csv_path.name}, {page.name}")
    if n_failed:
        launches = counted(n_failed, "launch", "launches")
        say_progress(f"{launches} failed; the same command tries again")
        args.status = 1
    return study.content
