"""Error of the scaling model: fitted on few emulated hosts, compared with more of them.

    pip install -e '.[mpich,fast]'
    python scripts/bench/model_error.py [--rates 100mbit,200mbit,400mbit] [--fit 3]
        [--output error.json] [--read error.json]

One rank on each of six network namespaces (scripts/dev/hosts, which needs root), whose
ports tc limits to a rate. For each rate, sums of blocks and training steps of a network
64-512-512-10 are measured on 2, 3, 4 and 6 of them. Waiting ranks sleep instead of
polling, as the hosts share the cores of one machine. The token buckets of the ports are
small, as a large one lets whole blocks pass at once, and their queues long, so that
nothing is dropped. Hosts that outnumber the cores compute more slowly, as no network
makes them do: the model is told by how much, hosts divided by cores.

Two predictions are compared with measurements that they have not seen:

- more hosts: fitted on up to ``--fit`` hosts, for those with more;
- another network: fitted on up to ``--fit`` hosts at the highest rate, for all hosts at
  other rates, of which it is told only the rate.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from pympi_train.scaling.model import fit, validate

ROOT = Path(__file__).parents[2]
HOSTS = ROOT / "scripts" / "dev" / "hosts"
COUNTS = 2, 3, 4, 6
BURST, QUEUE = "16kb", "500ms"
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")  # of cgroups, version 1
SIZES = (2**12, 2**16, 2**18, 2**20, 2**21)
ROUNDS, BUDGET_S = 9, 1.5
STEPS, MORE_STEPS = 20, 60  # more of short ones, which other programs disturb more
TIMEOUT_S = 400
LAYERS = 3
PAYLOAD = 1448 / 1514  # of the bytes of an Ethernet frame with TCP, which tc counts
WAYS = {
    "allreduce": ['parallel.overlap="off"'],
    "bf16": ['parallel.compression="bf16"'],
    "int8": ['parallel.compression="int8"'],
    "topk": ['parallel.compression="topk"'],
    "powersgd": ['parallel.compression="powersgd"'],
    "sharded": ['parallel.strategy="sharded"'],
}
SHORT = "topk", "powersgd"
CONFIG = """
[data]
train = "{digits}"
target = "y"
[model]
kind = "mlp"
hidden = [512, 512]
[optimizer]
name = "adam"
[train]
batch_size = 64
backend = "numba"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="100mbit,200mbit,400mbit")
    parser.add_argument("--fit", type=int, default=3, help="most hosts of the fit")
    parser.add_argument("--output", help="file for what was measured, as JSON")
    parser.add_argument("--read", help="such a file: measure nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args.measure)
    if args.read:
        studies = json.loads(Path(args.read).read_text())
    else:
        rates = args.rates.split(",")
        with ahead_of_others():
            studies = {rate: study(rate) for rate in rates}
    if args.output:
        Path(args.output).write_text(json.dumps(studies))
    tell(studies, args.fit)


def study(rate):
    """Return a study of a rate: what the ranks on each numbers of hosts have found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        own = [sys.executable, __file__, "--measure", str(path)]
        about = {"HOSTS_NAME": "model", "HOSTS_BURST": BURST, "HOSTS_QUEUE": QUEUE}
        about |= {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "OMP_NUM_THREADS": "1"}
        environ = {**os.environ, **about}
        how = {"check": True, "env": environ}
        try:
            subprocess.run([HOSTS, "up", str(COUNTS[-1]), rate], timeout=60, **how)
            command = [HOSTS, "run", "-n", str(COUNTS[-1]), "--", *own]
            subprocess.run(command, timeout=TIMEOUT_S, **how)
        finally:
            subprocess.run([HOSTS, "down"], timeout=60, **how)
        print(f"{rate}: measured", file=sys.stderr, flush=True)
        return json.loads(path.read_text())


@contextmanager
def ahead_of_others():
    """Give this process and its children far more weight than other programs have."""
    group = CPU_GROUPS / f"model-error-{os.getpid()}"
    if not CPU_GROUPS.exists():
        yield
        return
    group.mkdir()
    try:
        (group / "cpu.shares").write_text("65536")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (CPU_GROUPS / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def measure(path):
    """Measure on some of these ranks; rank 0 writes a study. Collective."""
    from pympi_train.bench import exchange
    from pympi_train.comm.mesh import world
    from pympi_train.scaling.study import exchanges

    comm = world()
    exchanges.ROUNDS, exchanges.sizes_around = ROUNDS, lambda _: SIZES
    exchange.BUDGET_S, exchange._measure_updates = BUDGET_S, lambda *_: {}
    found = {"exchanges": [], "measurements": []}
    for n in COUNTS:
        comm.Barrier()
        part = comm.Split(comm.rank >= n, comm.rank)
        if comm.rank < n:
            _measure_part(part, found)
        part.Free()
    comm.Barrier()
    if comm.rank == 0:
        Path(path).write_text(json.dumps(found))


def _measure_part(comm, found):
    from pympi_train.config import config
    from pympi_train.scaling.study import exchanges
    from pympi_train.scaling.study import measure as steps

    sums = exchanges.measure_exchanges(comm, 0)
    digits = ROOT / "examples" / "digits.npz"
    text = CONFIG.format(digits=digits)
    for strategy, overrides in WAYS.items():
        told = config.parse(text, where="config", folder=ROOT, overrides=overrides)
        told = steps.with_batch(told, 64 * comm.size)
        n_steps = MORE_STEPS if strategy in SHORT else STEPS
        one = steps.measure_step(told, comm, n_steps, 1)
        if comm.rank == 0:
            about = {"mode": "weak", "strategy": strategy, "repeat": 0, "error": None}
            found["measurements"].append({**one, **about, "oversubscribed": False})
    # One rank a host, although the hosts are one machine to /proc.
    place = {"nodes": comm.size, "node_of": list(range(comm.size))}
    found["exchanges"] += [one | place for one in sums]
    for one in found["measurements"]:
        if one["ranks"] == comm.size:
            one |= place


def gbit_of(rate):
    """Return the Gbit/s of a rate as tc takes it."""
    number, unit = re.fullmatch(r"(\d+)([kmg])bit", rate).groups()
    return int(number) * {"k": 1e-6, "m": 1e-3, "g": 1.0}[unit]


def tell(studies, n_fit):
    """Print the errors of steps and sums of each prediction, and of all."""
    print(f"fitted on up to {n_fit} hosts; {os.cpu_count()} cores")
    print("| prediction | n | median error | worst error |\n|---|---|---|---|")
    models = {rate: fitted(one, n_fit) for rate, one in studies.items()}
    everything = {}
    for rate, one in studies.items():
        more = [n for n in COUNTS if n > n_fit]
        name = f"{rate}, more hosts"
        print_errors(name, models[rate], one, more, n_fit, everything)
    first = max(studies, key=gbit_of)
    for rate, one in studies.items():
        if rate != first:
            latency_s = models[first].costs.mpi.outer_s
            network = latency_s, 8e-9 / gbit_of(rate) / PAYLOAD
            model = fitted(studies[first], n_fit, network)
            name = f"{first} for {rate}"
            print_errors(name, model, one, COUNTS, n_fit, everything)
    for kind, found in everything.items():
        print_row(f"all {kind}", found)
    print_row("all", sum(everything.values(), []))


def fitted(study, n_fit, network=None):
    seen = {key: fit.before(study[key], n_fit + 1) for key in study}
    return fit.fit_model(seen, network=network, n_layers=LAYERS)


def crowd(n_hosts):
    """Return by how much hosts slow each other down that share this machine's cores."""
    return max(1.0, n_hosts / len(os.sched_getaffinity(0)))


def print_errors(name, model, study, counts, n_fit, everything):
    errors = {"steps": [], "sums": []}
    seen = statistics.fmean(crowd(n) for n in COUNTS if n <= n_fit)
    for ranks in counts:
        slow = model.slowed(crowd(ranks) / seen)
        for about, error in validate.compared(slow, study, ranks):
            kind = "steps" if about.startswith("step") else "sums"
            errors[kind].append((abs(error), f"{about}, {ranks} hosts", error))
    for kind, found in errors.items():
        if found:
            print_row(f"{name}, {kind}", found)
            everything.setdefault(kind, []).extend(found)


def print_row(name, found):
    sizes = [size for size, *_ in found]
    worst = max(found)
    print(
        f"| {name} | {len(found)} | {statistics.median(sizes):.1%} | "
        f"{worst[2]:+.1%}: {worst[1]} |"
    )


if __name__ == "__main__":
    main()
