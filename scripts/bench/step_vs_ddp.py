"""Time one training step on two ranks with this package and with PyTorch DDP.

    pip install -e '.[mpich,fast,reference]'
    python scripts/bench/step_vs_ddp.py [--repeats 5] [--json]

Same models, same rows per rank, float32, Adam, one thread per rank; PyTorch with gloo
and Adam(fused=True). The two sides take turns, so that changes of the machine affect
both; a figure is the median over the repeats of the slowest rank's median step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = (  # model, layers, rows per rank, steps
    ("softmax", "784,10", 64, 1000),
    ("logistic", "1000,1", 256, 1000),
    ("mlp", "784,512,512,10", 64, 200),
    ("mlp", "784,512,512,10", 256, 100),
    ("mlp", "300,700,700,700,50", 96, 100),
    ("mlp", "1024,2048,2048,1000", 64, 30),
)
RANKS = 2
MPIRUN = Path(sys.executable).parent / "mpirun"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ddp", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ddp:
        model, layers, rows, steps = args.ddp
        return ddp(model, [int(n) for n in layers.split(",")], int(rows), int(steps))
    found = [compare(case, args.repeats) for case in CASES]
    if args.json:
        print(json.dumps(found))
        return
    print(f"{'model':32} {'ours':>9} {'DDP':>9}  DDP/ours, by repeat")
    for row in found:
        ratios = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        ours, theirs = (f"{1e3 * row[side]:6.3f} ms" for side in ("ours_s", "ddp_s"))
        print(
            f"{row['case']:32} {ours} {theirs}  "
            f"{statistics.median(row['ratios']):.2f}  ({ratios})"
        )


def compare(case, repeats):
    model, layers, rows, steps = map(str, case)
    ours = ["-m", "pympi_train", "bench", "step", "--json", "--model", model]
    ours += ["--layers", layers, "--batch-size", rows, "--steps", steps]
    theirs = [__file__, "--ddp", model, layers, rows, steps]
    pairs = [(launch(ours), launch(theirs)) for _ in range(repeats)]
    return {
        "case": f"{model} {layers}, {rows} a rank",
        "ours_s": statistics.median(a for a, _ in pairs),
        "ddp_s": statistics.median(b for _, b in pairs),
        "ratios": [b / a for a, b in pairs],
    }


def launch(argv):
    """Run a command; return the seconds of a step, from its last line of JSON."""
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [MPIRUN, "-n", str(RANKS), sys.executable, *argv],
        env={**os.environ, **one_thread, **(root if os.geteuid() == 0 else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["median_step_s"]


def ddp(model, layers, n_rows, steps):
    """Time the same step in PyTorch; the rank comes from the launcher's variables."""
    import torch
    import torch.distributed as dist

    rank = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", 0)))
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29531")
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    net = torch.nn.parallel.DistributedDataParallel(torch_net(layers))
    if model == "logistic":
        target = torch.randint(0, 2, (n_rows, 1)).float()
        loss = torch.nn.BCEWithLogitsLoss()
    else:
        target = torch.randint(0, layers[-1], (n_rows,))
        loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    x = torch.randn(n_rows, layers[0])
    seconds = []
    for _ in range(1 + steps // 10 + steps):
        last = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        loss(net(x), target).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - last)
    slowest = torch.tensor(seconds[-steps:], dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    if rank == 0:
        print(json.dumps({"median_step_s": slowest.median().item()}), flush=True)
    dist.barrier()
    os._exit(0)  # gloo's threads sometimes abort a process that exits normally


def torch_net(layers):
    from torch import nn

    parts = []
    for n_in, n_out in zip(layers, layers[1:]):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


if __name__ == "__main__":
    main()
