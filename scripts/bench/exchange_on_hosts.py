"""The exchange of ten million parameters, one rank on each of several hosts.

    scripts/dev/hosts up 3 1gbit
    scripts/dev/hosts run -n 3 -- python scripts/bench/exchange_on_hosts.py
        [--rounds 5] [--seconds 20] [--rate 1e9] [--only sums|training] [--json]

``sums``: sums a float32 block with the layout of a network in all ways, in turn.
Seconds are the slowest rank's, including compression and decompression: the median over
the rounds, and the minimum, which is more reliable if others use the machine.
``training``: trains that network on the digits for a given time, always from the same
parameters and with the same batches; the loss is that of held-out rows.
scripts/bench/exchange_on_hosts.sh runs this on two and three hosts.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.backends.select import select
from pympi_train.comm.collectives import reduced
from pympi_train.comm.mesh import world
from pympi_train.comm.sums.compress import compressed_sum
from pympi_train.errors import ConfigError
from pympi_train.parallel.trials import SUMS

HIDDEN, ROWS = [3072, 3072], 32  # rows of a batch per rank
STEPS = 8  # per epoch
KINDS = ("fp16", "bf16", "int8", "topk", "powersgd")
DIGITS = Path(__file__).parents[2] / "examples" / "digits.npz"
TRAININGS = {
    "allreduce": {},
    **{f"allreduce, {kind}": {"compression": kind} for kind in KINDS},
    "sharded, stage 1": {"strategy": "sharded"},
    "server": {"strategy": "server"},
    "local, 4 steps": {"strategy": "local", "local_steps": 4},
    "local, 4 steps, int8": {
        "strategy": "local",
        "local_steps": 4,
        "compression": "int8",
    },
    "local, 8 steps, nesterov": {
        "strategy": "local",
        "local_steps": 8,
        "outer": "nesterov",
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a training")
    parser.add_argument("--rate", type=float, default=1e9, help="bits/s of a host")
    parser.add_argument("--only", choices=["sums", "training"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    comm, found = world(), {}
    if args.only != "training":
        found["sums"] = time_sums(comm, args.rounds, args.rate)
    if args.only != "sums":
        found["training"] = {
            name: row
            for name, keys in TRAININGS.items()
            if (row := train(comm, keys, args.seconds)) is not None
        }
    if comm.rank == 0:
        print(json.dumps({"ranks": comm.size, **found}) if args.json else told(found))


def network():
    return pt.MLP(64, HIDDEN, 10)


def time_sums(comm, rounds, rate):
    """Return seconds and bytes of each way to sum, by name. Collective."""
    layout = network().layout
    source = np.random.default_rng(comm.rank).standard_normal(layout.size, np.float32)
    block, ops = np.empty_like(source), select("auto").ops
    plain_bytes = 2 * block.nbytes * (comm.size - 1) / comm.size
    ways = {name: partial(add, comm, block) for name, add in SUMS.items()}
    wires = {kind: compressed_sum(kind, comm, layout, ops) for kind in KINDS}
    ways.update({kind: partial(wire.sum, block) for kind, wire in wires.items()})
    history = []
    for _ in range(rounds + 1):
        seconds = []
        for call in ways.values():
            block[:] = source
            comm.Barrier()
            started = perf_counter()
            call()
            seconds.append(perf_counter() - started)
        history.append(reduced(comm, seconds, op="MAX"))
    history = np.array(history[1:])  # the first is a warm-up
    sent = {kind: wire.sent_bytes / (rounds + 1) for kind, wire in wires.items()}
    ideal_s = 8 * plain_bytes / rate
    return {
        name: {
            "median_s": statistics.median(times.tolist()),
            "least_s": float(times.min()),
            "sent_bytes": sent.get(name, plain_bytes),
            "times_mpi": float(np.median(times / history[:, 0])),
            "times_ideal": statistics.median(times.tolist()) / ideal_s,
        }
        for name, times in zip(ways, history.T)
    }


def train(comm, keys, seconds):
    """Train for about ``seconds``; return the result, or None. Collective."""
    with np.load(DIGITS) as file:
        x, y = file["X"].astype(np.float32) / 16, file["y"].astype(np.int32)
    try:
        parallel = pt.Parallel(**{"strategy": "allreduce", "overlap": "off", **keys})
        trainer = pt.Trainer(
            network(),
            pt.Adam(1e-3),
            batch_size=ROWS * comm.size,
            comm=comm,
            parallel=parallel,
        )
    except ConfigError:  # too few ranks
        return None
    with trainer:
        if trainer.serves:
            fit = partial(trainer.fit, None)
        else:
            n = STEPS * trainer.batch_size
            fit = partial(
                trainer.fit, pt.Dataset.split(x[:n], y[:n], comm=trainer.comm)
            )
        comm.Barrier()
        started = perf_counter()
        fit(epochs=1)
        epoch_s = perf_counter() - started
        (n_more,) = reduced(comm, [round(seconds / epoch_s) - 1], op="MIN")
        started = perf_counter()
        if n_more > 0:
            fit(epochs=int(n_more))
        spent_s = epoch_s + perf_counter() - started
        if trainer.serves:  # never on rank 0
            return {}
        held_out = pt.Dataset.split(x[-359:], y[-359:], comm=trainer.comm)
        measured = trainer.evaluator(held_out)()
        return {"seconds": spent_s, "steps": trainer.steps, "loss": measured["loss"]}


def told(found):
    """Return the tables in Markdown."""
    lines = []
    if "sums" in found:
        lines += ["| sum | ms | least | MB sent | / mpi | / ideal |"]
        lines += ["|---|---|---|---|---|---|"]
    for name, row in found.get("sums", {}).items():
        ms, least = 1e3 * row["median_s"], 1e3 * row["least_s"]
        sent = row["sent_bytes"] / 1e6
        ratios = f"{row['times_mpi']:.2f} | {row['times_ideal']:.2f}"
        lines.append(f"| {name} | {ms:.0f} | {least:.0f} | {sent:.2f} | {ratios} |")
    if "training" in found:
        lines += ["", "| training | steps | s | loss |", "|---|---|---|---|"]
    for name, row in found.get("training", {}).items():
        steps, loss = row["steps"], row["loss"]
        lines.append(f"| {name} | {steps} | {row['seconds']:.1f} | {loss:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
