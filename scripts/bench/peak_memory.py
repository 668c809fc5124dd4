"""Peak memory of a rank during training, by strategy and number of ranks.

    pip install -e '.[mpich,fast]'
    python scripts/bench/peak_memory.py [--width 2048] [--layers 6] [--json]

A float32 MLP of equal layers with Adam. Each figure comes from new processes: the
increase of the peak resident size (VmHWM of /proc/self/status) from the creation of the
Trainer to the end of three steps, the maximum over the ranks. The table also shows the
size that the strategy's docstring predicts for the blocks of parameters, gradients and
optimizer state. The rest are outputs of a batch, the MPI library's buffers and compiled
code. Linux only.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

STAGES = (0, 1, 2, 3)  # 0: allreduce
RANKS = (1, 2, 4)
ROWS, STEPS = 64, 3  # rows of the global batch
MPIRUN = Path(sys.executable).parent / "mpirun"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", type=int, choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage is not None:
        return measure(args)
    found = [launch(args, ranks, stage) for stage in STAGES for ranks in RANKS]
    if args.json:
        print(json.dumps(found))
        return
    model = args.layers * (args.width + 1) * args.width * 4
    print(f"parameters: {model / 1e6:.0f} MB; a rank's peak in MB (predicted blocks)")
    print(f"{'':12}" + "".join(f"{f'P = {ranks}':>16}" for ranks in RANKS))
    for stage in STAGES:
        row = [entry for entry in found if entry["stage"] == stage]
        print(f"{f'sharded, {stage}' if stage else 'allreduce':12}", end="")
        for entry in row:
            peak, held = (entry[key] / 1e6 for key in ("peak_bytes", "predicted"))
            print(f"{f'{peak:.0f} ({held:.0f})':>16}", end="")
        print()


def launch(args, ranks, stage):
    own = [sys.executable, __file__, "--stage", str(stage)]
    own += ["--width", str(args.width), "--layers", str(args.layers)]
    prefix = [str(MPIRUN), "-n", str(ranks)]
    done = subprocess.run(
        prefix + own, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args):
    """Train for STEPS steps; rank 0 prints the figures. Collective."""
    import numpy as np
    from mpi4py import MPI

    import pympi_train as pt

    comm, width, stage = MPI.COMM_WORLD, args.width, args.stage
    model = pt.MLP(width, [width] * (args.layers - 1), width, task="regression")
    parallel = pt.Parallel(strategy="allreduce", overlap="off")
    if stage:
        parallel = pt.Parallel(strategy="sharded", stage=stage)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS // comm.size, width), dtype=np.float32)
    data = pt.Dataset(x, x, comm=comm)
    warm_up(pt, np, comm)
    before = restart_peak()
    with pt.Trainer(
        model, pt.Adam(1e-4), batch_size=ROWS, parallel=parallel, comm=comm
    ) as trainer:
        trainer.fit(data, epochs=STEPS)
        peak = status("VmHWM") - before
    peak = comm.allreduce(peak, op=MPI.MAX)
    if comm.rank == 0:
        n, largest = model.layout.size, (width + 1) * width
        held = predicted(stage, n, largest, comm.size) * model.layout.dtype.itemsize
        found = {"ranks": comm.size, "stage": stage, "peak_bytes": peak}
        print(json.dumps({**found, "predicted": held}))


def predicted(stage, n, largest, ranks):
    """Return the elements of a rank's blocks with Adam, as the docstring predicts."""
    if stage == 0 or ranks == 1:
        return 4 * n
    shard = n / ranks
    if stage == 1:
        return 2 * n + 2 * shard + largest / ranks
    if stage == 2:
        return n + 3 * shard + largest
    return 4 * shard + 2 * largest


def warm_up(pt, np, comm):
    """Load the backend and start MPI's collectives, whose memory is allocated once."""
    x = np.ones((8, 4), dtype=np.float32)
    with pt.Trainer(pt.MLP(4, [4], 4, task="regression"), pt.Adam(), comm=comm) as t:
        t.fit(pt.Dataset(x, x, comm=comm), epochs=1)


def restart_peak():
    """Reset the peak to the current resident size; return that in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


if __name__ == "__main__":
    main()
