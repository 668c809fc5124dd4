#!/usr/bin/env python
"""Replay a recorded step on up to 100,000 simulated ranks, with each strategy.

    python scripts/bench/at_scale.py [RECORDED] [--ranks P,P,...] [--network KIND]

RECORDED is the JSON of `pympi-train scaling`, or a run that was trained with --trace.
"""

import argparse
import json
import os
import time

import numpy as np

from pympi_train.scaling.simulation.networks import Dragonfly, FatTree
from pympi_train.scaling.simulation.replay import (
    compute_times,
    replay_step,
    traced_times,
)
from pympi_train.scaling.simulation.strategies import STRATEGIES


def networks(args):
    """Return the network that the arguments describe."""
    given = {
        "ranks_per_node": args.ranks_per_node,
        "bytes_per_s": args.gbit * 1e9 / 8,
        "latency_s": args.us * 1e-6,
    }
    if args.network == "dragonfly":
        return Dragonfly(pair_bytes_per_s=args.pair_gbit * 1e9 / 8, **given)
    return FatTree(taper=args.taper, **given)


def planted(args):
    """Return lognormal times of compute, for want of a recorded study."""
    spread = np.random.default_rng(1).normal(0, args.spread, 4096)
    return args.compute_ms * 1e-3 * np.exp(spread), int(args.megabytes * 1e6)


def recorded(path):
    """Return the times of compute of a study or a trace, and the gradient's bytes."""
    if not os.path.isdir(path):
        with open(path, encoding="utf-8") as file:
            if '"traceEvents"' not in file.readline(10_000):
                file.seek(0)
                return compute_times(json.load(file))
    return traced_times(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    told = "JSON of pympi-train scaling, trace.json, or the directory of its run"
    parser.add_argument("recorded", nargs="?", help=told)
    parser.add_argument("--ranks", default="64,1024,8192,65536")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    kinds = "fat-tree", "dragonfly"
    parser.add_argument("--network", choices=kinds, default=kinds[0])
    parser.add_argument("--ranks-per-node", type=int, default=64)
    parser.add_argument("--gbit", type=float, default=100.0, help="of a node's link")
    parser.add_argument("--us", type=float, default=2.0, help="latency of a message")
    parser.add_argument("--taper", type=float, default=2.0, help="of the fat tree")
    parser.add_argument("--pair-gbit", type=float, default=400.0, help="between groups")
    parser.add_argument("--servers", type=int, default=16)
    parser.add_argument("--period", type=int, default=8, help="of local steps")
    for name, value in (("compute-ms", 50.0), ("spread", 0.05), ("megabytes", 100.0)):
        told = "if not recorded"
        parser.add_argument(f"--{name}", type=float, default=value, help=told)
    args = parser.parse_args()
    compute_s, n_bytes = recorded(args.recorded) if args.recorded else planted(args)
    more = {"server": {"n_servers": args.servers}, "local": {"period": args.period}}
    network = networks(args)
    print(f"gradient {n_bytes / 1e6:g} MB, compute {1e3 * compute_s.mean():.1f} ms")
    print(network)
    heads = "step ms", "transfer ms", "wait ms", "efficiency"
    heads = [f"{head:>11}" for head in heads]
    print(f"{'strategy':13} {'ranks':>7}", *heads, "simulated in s")
    for strategy in args.strategies.split(","):
        for n_ranks in map(int, args.ranks.split(",")):
            began_s = time.perf_counter()
            made_of = compute_s, n_bytes, network, n_ranks, strategy
            found = replay_step(*made_of, **more.get(strategy, {}))
            spent_s = time.perf_counter() - began_s
            ms = (found.step_s, found.transfer_s, found.wait_s)
            values = [*(f"{1e3 * s:11.2f}" for s in ms), f"{found.efficiency:11.3f}"]
            print(f"{strategy:13} {n_ranks:7}", *values, f"{spent_s:14.2f}")


if __name__ == "__main__":
    main()
