"""``pympi-train plan``: the fastest strategy on more ranks, before a job is queued."""

import dataclasses
import os
from contextlib import contextmanager

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.train import add_config
from pympi_train.errors import ConfigError
from pympi_train.runs.speech import counted, say_progress

STEPS, MAX_S = 50, 20.0  # timed steps of a local measurement, and their seconds
MAX_RANKS = 1_000_000


def add_arguments(parser):
    """Add the arguments of ``plan``."""
    add_config(parser)
    find_config = parser.get_default("finish")
    parser.add_argument(
        "--ranks", type=whole_number(), required=True, help="ranks of the job"
    )
    parser.add_argument(
        "--ranks-per-node",
        type=whole_number(),
        help="ranks of a node (all on one node; with --study, as there)",
    )
    parser.add_argument(
        "--network",
        metavar="gbit=25,us=2",
        help="rate of a node's port and latency between nodes, if not measured",
    )
    parser.add_argument(
        "--study",
        metavar="OUT.json",
        help="of pympi-train scaling: its measurements, instead of steps of this "
        "process",
    )
    parser.add_argument(
        "--mode",
        choices=("strong", "weak"),
        default="strong",
        help="strong: the batch of the configuration on all ranks together; weak: on "
        "each rank (%(default)s)",
    )
    parser.add_argument(
        "--memory-gb", type=float, metavar="G", help="memory of a rank in GB"
    )
    add_common(parser, run_alone)
    parser.set_defaults(finish=lambda args: _choose(args, find_config))


def _choose(args, find_config):
    """MPI is started only to measure steps here."""
    find_config(args)
    args.needs_mpi = args.study is None
    if args.needs_mpi:
        args.run = run


def run_alone(args):
    """Plan by a study, without MPI; print the plan and return it."""
    from pympi_train.config.files import ConfigFile
    from pympi_train.scaling.study.record import read_study

    _check(args)
    file = ConfigFile.read(args.config)
    config = file.parse(args.set)
    study = read_study(args.study)
    _tell_difference(args, file, study)
    return _plan(args, config, file, study)


def run(args, comm):
    """Plan by a few steps of this process; print the plan and return it."""
    from pympi_train.comm.checks import together
    from pympi_train.config.files import ConfigFile

    with together(comm):
        if comm.size > 1:
            raise ConfigError(
                f"plan measures on one process, but {comm.size} were started: leave "
                "out mpirun or srun"
            )
        _check(args)
        file = ConfigFile.read(args.config)
        config = file.parse(args.set)
        with _cores_of_rank(args.ranks_per_node or args.ranks):
            study = _measured(args, config, comm)
        return _plan(args, config, file, study)


@contextmanager
def _cores_of_rank(per_node):
    """Give this process the cores that each of the ranks of a node like this one has.

    OMP_NUM_THREADS takes precedence.
    """
    from pympi_train.backends.threads import affinity

    own = affinity()
    if os.environ.get("OMP_NUM_THREADS") or not hasattr(os, "sched_setaffinity"):
        yield
        return
    os.sched_setaffinity(0, sorted(own)[: max(1, len(own) // per_node)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _tell_difference(args, file, study):
    """Print a note if the study is of other settings: its steps are planned."""
    from pympi_train.scaling.study.record import settings_digest

    if settings_digest(file.text, args.set) != study.get("config_hash"):
        say_progress(
            f"note: {args.study} is a study of {study.get('config')} with other "
            "settings: rows, model and batch of the plan are those of the study"
        )


def _check(args):
    from pympi_train.scaling.model.links import parse_network

    if args.ranks > MAX_RANKS:
        raise ConfigError(f"--ranks {args.ranks}: expected at most {MAX_RANKS:,}")
    if args.memory_gb is not None and not 0 < args.memory_gb < 1e9:
        raise ConfigError(f"--memory-gb {args.memory_gb}: expected a number above 0")
    args.network = parse_network(args.network) if args.network else None


def _measured(args, config, comm):
    """Return a study of steps of one process: of the whole batch, of a rank's share."""
    from pympi_train.parallel.settings import Parallel
    from pympi_train.scaling.study.measure import measure_step, with_batch

    alone = dataclasses.replace(config, parallel=Parallel())
    full = config.train.batch_size
    shares = {full, max(1, full // args.ranks)} if args.mode == "strong" else {full}
    if config.optimizer.name in ("gd", "lbfgs"):
        shares = {full}
    about = {"mode": "strong", "strategy": "allreduce", "repeat": 0, "error": None}
    about["oversubscribed"] = False
    found = []
    for rows in sorted(shares, reverse=True):
        say_progress(f"measuring up to {STEPS} steps of {counted(rows, 'row')}")
        own = with_batch(alone, rows)
        found.append({**measure_step(own, comm, STEPS, 1, max_s=MAX_S), **about})
    return {"measurements": found, "exchanges": []}


def _plan(args, config, file, study):
    from pympi_train.cli.plan.show import StrategyPlan, plan_as_json, say_plan
    from pympi_train.scaling.model.fit import fit_model
    from pympi_train.scaling.model.memory import needs_of
    from pympi_train.scaling.model.recommend import fastest_option, options_for, reason

    n_layers = len(config.model.hidden) + 1 if config.model.kind == "mlp" else 1
    model = fit_model(study, network=args.network, n_layers=n_layers)
    known = model.per_node if args.study else args.ranks
    per_node = min(args.ranks_per_node or known, args.ranks)
    if args.ranks > per_node and not model.costs.is_outer_known:
        raise ConfigError(
            f"{args.ranks} ranks, {per_node} on each node: nothing was measured "
            "between nodes: give --network gbit=RATE,us=LATENCY, a --study of several "
            f"nodes, or --ranks-per-node {args.ranks} if all share one"
        )
    if args.mode == "strong" and args.ranks > model.batch_size:
        say_progress(
            f"note: a batch of {model.batch_size:,} rows is too small for "
            f"{args.ranks:,} ranks: some have none; see --mode weak"
        )
    how = {"per_node": per_node, "mode": args.mode}
    if args.memory_gb is not None:
        how["memory_bytes"] = args.memory_gb * 1e9
    needs = needs_of(config, model.gradient.n_bytes)
    options = options_for(model, needs, _allowed(config, args, file), args.ranks, **how)
    best = fastest_option(options)
    plan = StrategyPlan(
        ranks=args.ranks,
        per_node=per_node,
        mode=args.mode,
        best=best,
        fastest=fastest_option(options, any_result=True),
        options=options,
        why=reason(best, options),
        error=model.error,
        unknown=_no_error(args, model),
    )
    if not args.json:
        say_plan(plan)
    return plan_as_json(plan)


def _no_error(args, model):
    """Return why a plan has no error of the model, if it has none."""
    if args.network and model.ranks > 1:
        return "no step on the network of --network was measured"
    return "no step on several ranks was measured"


def _allowed(config, args, file):
    """Return the ways that the rest of the configuration allows."""
    from pympi_train.scaling.model.ways import all_ways

    p, found = config.parallel, []
    local_steps = p.local_steps if p.strategy == "local" else 8
    for way in all_ways(local_steps=local_steps, servers=p.servers):
        told = [
            f"parallel.{key}={value!r}".replace("'", '"')
            for key, value in _reset(p, way.settings()).items()
        ]
        try:
            file.parse([*args.set, *told])
        except ConfigError:
            continue
        found.append(way)
    return found


def _reset(parallel, settings):
    """Return ``settings`` and the defaults of all other keys of ``[parallel]``."""
    default = type(parallel)()
    names = [field.name for field in dataclasses.fields(parallel)]
    changed = {
        name: getattr(default, name)
        for name in names
        if getattr(parallel, name) != getattr(default, name)
        and name not in ("timeout_s", "check_every", "debug", "transport")
    }
    return {**changed, **settings}
