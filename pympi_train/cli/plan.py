"""``pympi-train plan``: the fastest strategy on more ranks, before a job is queued."""

import dataclasses

from pympi_train.cli import add_common
from pympi_train.cli.arguments import whole_number
from pympi_train.cli.train import add_config
from pympi_train.errors import ConfigError

STEPS = 50  # timed steps of a local measurement
MAX_RANKS = 1_000_000
N_SHOWN = 8


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
        help="of pympi-train scaling: its measurements instead of steps of this process",
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
    from pympi_train.scaling.study.record import read_study

    _check(args)
    configure = _configured(args)
    config = configure()
    study = read_study(args.study)
    return _plan(args, config, configure, study)


def run(args, comm):
    """Plan by a few steps of this process; print the plan and return it."""
    from pympi_train.comm.checks import together

    with together(comm):
        if comm.size > 1:
            raise ConfigError(
                f"plan measures on one process, but {comm.size} were started: leave out "
                "mpirun or srun"
            )
        _check(args)
        configure = _configured(args)
        config = configure()
        return _plan(args, config, configure, _measured(args, config, comm))


def _check(args):
    from pympi_train.scaling.model.links import parse_network

    if args.ranks > MAX_RANKS:
        raise ConfigError(f"--ranks {args.ranks}: expected at most {MAX_RANKS:,}")
    if args.memory_gb is not None and not 0 < args.memory_gb < 1e9:
        raise ConfigError(f"--memory-gb {args.memory_gb}: expected a number above 0")
    args.network = parse_network(args.network) if args.network else None


def _configured(args):
    from pathlib import Path

    from pympi_train.config import config as configuration
    from pympi_train.paths import expanded

    path = expanded(args.config)
    text, folder = configuration.read_text(path), Path(path).parent

    def configure(overrides=()):
        told = [*args.set, *overrides]
        return configuration.parse(text, where=path, folder=folder, overrides=told)

    return configure


def _measured(args, config, comm):
    """Return a study of steps of one process, of the whole batch and of a rank's share.
    """
    from pympi_train.parallel.settings import Parallel
    from pympi_train.scaling.study.measure import measure_step, with_batch

    alone = dataclasses.replace(config, parallel=Parallel())
    full = config.train.batch_size
    shares = {full, max(1, full // args.ranks)} if args.mode == "strong" else {full}
    if config.optimizer.name in ("gd", "lbfgs"):
        shares = {full}
    about = {"mode": "strong", "strategy": "allreduce", "repeat": 0, "error": None}
    about["oversubscribed"] = False
    found = [
        {**measure_step(with_batch(alone, rows), comm, STEPS, 1), **about}
        for rows in sorted(shares, reverse=True)
    ]
    return {"measurements": found, "exchanges": []}


def _plan(args, config, configure, study):
    from pympi_train.scaling.model.fit import fit_model
    from pympi_train.scaling.model.memory import needs_of
    from pympi_train.scaling.model.recommend import best_of, options_for, reason

    n_layers = len(config.model.hidden) + 1 if config.model.kind == "mlp" else 1
    model = fit_model(study, network=args.network, n_layers=n_layers)
    known = model.per_node if args.study else args.ranks
    per_node = min(args.ranks_per_node or known, args.ranks)
    if args.ranks > per_node and not model.costs.is_outer_known:
        raise ConfigError(
            f"{args.ranks} ranks, {per_node} on each node: nothing was measured between "
            "nodes: give --network gbit=RATE,us=LATENCY, or a --study of several nodes"
        )
    how = {"per_node": per_node, "mode": args.mode}
    if args.memory_gb is not None:
        how["memory_bytes"] = args.memory_gb * 1e9
    needs = needs_of(config, model.gradient_bytes)
    options = options_for(model, needs, _allowed(config, configure), args.ranks, **how)
    best = best_of(options)
    any_result = best_of(options, any_result=True)
    why = reason(best, options)
    if not args.json:
        _tell(args, model, per_node, options, best, any_result, why)
    return _content(args, model, per_node, options, best, any_result, why)


def _allowed(config, configure):
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
            configure(told)
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


def _tell(args, model, per_node, options, best, any_result, why):
    from pympi_train.runs.speech import say

    chosen = best.prediction
    say(f"{args.ranks} ranks, {per_node} on a node, {args.mode} scaling")
    say(f"use       {chosen.way}")
    for key, value in chosen.way.settings().items():
        text = f'"{value}"' if isinstance(value, str) else value
        say(f"          [parallel] {key} = {text}")
    say(f"step      {1e3 * chosen.step_s:.3f} ms, efficiency {chosen.efficiency:.1%}")
    say(f"memory    {best.memory_bytes / 1e9:.2f} GB a rank")
    say(f"why       {why}")
    if any_result.prediction.way != chosen.way:
        other = any_result.prediction
        say(
            f"faster    {other.way}: {1e3 * other.step_s:.3f} ms, but the result "
            f"{_of(other.way)}"
        )
    say(f"error     {model.error or 'not known: nothing was compared'}")
    say("")
    say(f"{'strategy':28}{'ms a step':>10}{'efficiency':>12}{'GB a rank':>11}  result")
    for one in options[:N_SHOWN]:
        p = one.prediction
        memory = f"{one.memory_bytes / 1e9:.2f}" + ("" if one.fits else " !")
        say(
            f"{str(p.way):28}{1e3 * p.step_s:>10.3f}{p.efficiency:>12.1%}{memory:>11}"
            f"  {p.way.result}"
        )


def _of(way):
    return way.result if way.result == "differs" else f"is {way.result}"


def _content(args, model, per_node, options, best, any_result, why):
    error = model.error
    return {
        "ranks": args.ranks,
        "ranks_per_node": per_node,
        "mode": args.mode,
        "best": _row(best),
        "fastest": _row(any_result),
        "why": why,
        "error": None if error is None else error._asdict(),
        "options": [_row(one) for one in options],
    }


def _row(option):
    p = option.prediction
    return {
        "strategy": p.way.strategy,
        "compression": p.way.compression,
        "settings": p.way.settings(),
        "step_s": p.step_s,
        "efficiency": p.efficiency,
        "parts_s": p.parts_s,
        "memory_bytes": option.memory_bytes,
        "fits": option.fits,
        "result": p.way.result,
    }
