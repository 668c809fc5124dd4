"""Time one training step on one GPU with this package and with PyTorch.

    python scripts/gpu/step_vs_torch.py [--repeats 5] [--torch-python PATH] [--json]

Same models, same rows, float32 without TF32, Adam; PyTorch with Adam(fused=True). The
two sides take turns, in separate processes; a figure is the median over the repeats of
the median step. Both read the loss of each step on the host, as for logging.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

CASES = (  # layers of an mlp, rows, steps
    ("784,512,512,10", 256, 300),
    ("1024,2048,2048,1000", 256, 200),
    ("4096,8192,8192,4096", 1024, 50),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--torch-python", default=sys.executable, help="a Python that has PyTorch"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch", nargs=3, type=str, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch:
        layers, rows, steps = args.torch
        torch_steps([int(n) for n in layers.split(",")], int(rows), int(steps))
        return
    found = [compare(case, args.repeats, args.torch_python) for case in CASES]
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(
            f"{row['case']:32} {1e3 * row['ours_s']:8.3f} ms, PyTorch "
            f"{1e3 * row['torch_s']:8.3f} ms, PyTorch / ours {row['ratio']:.2f}"
        )


def compare(case, repeats, torch_python):
    layers, rows, steps = map(str, case)
    ours = [sys.executable, "-m", "pympi_train", "bench", "step", "--json"]
    ours += [
        "--backend",
        "cuda",
        "--layers",
        layers,
        "--batch-size",
        rows,
        "--steps",
        steps,
    ]
    theirs = [torch_python, __file__, "--torch", layers, rows, steps]
    pairs = [(launch(ours), launch(theirs)) for _ in range(repeats)]
    return {
        "case": f"mlp {layers}, {rows} rows",
        "ours_s": statistics.median(a for a, _ in pairs),
        "torch_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "ratios": [b / a for a, b in pairs],
    }


def launch(argv):
    """Run a command; return the seconds of a step, from its last line of JSON."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["median_step_s"]


def torch_steps(layers, n_rows, steps):
    """Print the median seconds of PyTorch's step."""
    import torch
    from torch import nn

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    parts = []
    for n_in, n_out in zip(layers, layers[1:]):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    net = nn.Sequential(*parts[:-1]).cuda()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    loss_of = nn.CrossEntropyLoss()
    x = torch.randn(n_rows, layers[0]).cuda()
    target = torch.randint(0, layers[-1], (n_rows,)).cuda()
    seconds = []
    for _ in range(1 + steps // 10 + steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(net(x), target)
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"median_step_s": statistics.median(seconds[-steps:])}))


if __name__ == "__main__":
    main()
