"""Error of the scaling model: fitted on few emulated hosts, compared with more of them.

    pip install -e '.[mpich,fast]'
    python scripts/bench/model_error.py [--rates 100mbit,1gbit,10gbit] [--hosts 2,3,4]
        [--fit 2] [--output error.json]

One rank on each of several network namespaces (scripts/dev/hosts, which needs root),
whose ports tc limits to a rate. For each rate, sums of blocks and training steps of a
network 64-512-512-10 are measured on each number of hosts. The model is fitted to up to
``--fit`` hosts, and predicts those with more, which it has not seen. If the machine has
fewer cores than hosts, computing slows down for a reason that no network has.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pympi_train.scaling.model import fit, validate

ROOT = Path(__file__).parents[2]
HOSTS = ROOT / "scripts" / "dev" / "hosts"
SIZES = {"100mbit": (2**12, 2**16, 2**18, 2**20, 2**22)}
MORE_SIZES = (2**12, 2**16, 2**18, 2**20, 2**22, 2**24)
STEPS = 12
TIMEOUT_S = 600
WAYS = {
    "allreduce": ['parallel.overlap="off"'],
    "bf16": ['parallel.compression="bf16"'],
    "int8": ['parallel.compression="int8"'],
    "topk": ['parallel.compression="topk"'],
    "powersgd": ['parallel.compression="powersgd"'],
    "sharded": ['parallel.strategy="sharded"'],
}
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
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="100mbit,1gbit,10gbit")
    parser.add_argument("--hosts", default="2,3,4")
    parser.add_argument("--fit", type=int, default=2, help="most hosts of the fit")
    parser.add_argument("--output", help="file for what was measured, as JSON")
    parser.add_argument("--read", help="such a file: measure nothing")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(*args.measure)
    if args.read:
        studies = json.loads(Path(args.read).read_text())
    else:
        hosts = [int(n) for n in args.hosts.split(",")]
        studies = {rate: study(rate, hosts) for rate in args.rates.split(",")}
    if args.output:
        Path(args.output).write_text(json.dumps(studies))
    tell(studies, args.fit)


def study(rate, hosts):
    """Return a study of a rate: what the ranks on each number of hosts have found."""
    found = {"measurements": [], "exchanges": []}
    for n in hosts:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found.json"
            own = [sys.executable, __file__, "--measure", rate, str(path)]
            try:
                subprocess.run([HOSTS, "up", str(n), rate], check=True, timeout=60)
                command = [HOSTS, "run", "-n", str(n), "--", *own]
                subprocess.run(command, check=True, timeout=TIMEOUT_S)
            finally:
                subprocess.run([HOSTS, "down"], check=True, timeout=60)
            for key, values in json.loads(path.read_text()).items():
                found[key] += values
        print(f"{rate}, {n} hosts: measured", file=sys.stderr, flush=True)
    return found


def measure(rate, path):
    """Measure on these ranks; rank 0 writes a study. Collective."""
    from pympi_train.bench import exchange
    from pympi_train.comm.mesh import world
    from pympi_train.config import config
    from pympi_train.scaling.study import exchanges
    from pympi_train.scaling.study import measure as steps

    comm = world()
    sizes = SIZES.get(rate, MORE_SIZES)
    exchanges.ROUNDS, exchanges.sizes_around = 7, lambda _: sizes
    exchange.BUDGET_S = 4.0
    found = {"exchanges": exchanges.measure_exchanges(comm, 0), "measurements": []}
    digits = ROOT / "examples" / "digits.npz"
    text = CONFIG.format(digits=digits)
    for strategy, overrides in WAYS.items():
        told = config.parse(text, where="config", folder=ROOT, overrides=overrides)
        told = steps.with_batch(told, 64 * comm.size)
        one = steps.measure_step(told, comm, STEPS, 1)
        if comm.rank == 0:
            about = {"mode": "weak", "strategy": strategy, "repeat": 0, "error": None}
            # One rank a host, although the hosts are one machine to /proc.
            about |= {"nodes": comm.size, "node_of": list(range(comm.size))}
            found["measurements"].append({**one, **about, "oversubscribed": False})
    if comm.rank == 0:
        for one in found["exchanges"]:
            one |= {"nodes": comm.size, "node_of": list(range(comm.size))}
        Path(path).write_text(json.dumps(found))


def tell(studies, n_fit):
    """Print the errors of steps and sums by rate, and of all."""
    print(f"fitted on up to {n_fit} hosts, compared with more; {os.cpu_count()} cores")
    print("| rate | cases | n | median error | worst error |\n|---|---|---|---|---|")
    everything = {}
    for rate, one in studies.items():
        seen = {key: validate.before(one[key], n_fit + 1) for key in one}
        model = fit.fit_model(seen, n_layers=3)
        errors = {}
        for ranks in sorted({m["ranks"] for m in one["exchanges"]}):
            if ranks > n_fit:
                for name, error in validate.compared(model, one, ranks):
                    kind = "steps" if name.startswith("step") else "sums"
                    kind += f", {ranks} hosts"
                    errors.setdefault(kind, []).append((abs(error), name, error))
        for kind, found in errors.items():
            print_row(rate, kind, found)
            everything.setdefault(kind.split(",")[0], []).extend(found)
    for kind, found in everything.items():
        print_row("all", kind, found)
    if everything:
        print_row("all", "all", sum(everything.values(), []))


def print_row(rate, kind, found):
    sizes = [size for size, *_ in found]
    worst = max(found)
    print(
        f"| {rate} | {kind} | {len(found)} | {statistics.median(sizes):.1%} | "
        f"{worst[2]:+.1%}: {worst[1]} |"
    )


if __name__ == "__main__":
    main()
