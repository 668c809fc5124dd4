#!/usr/bin/env python
"""Time of an Adam update compared with PyTorch's, on one thread.

Each round times every version once, so that load on the machine affects all of them;
ratios are medians of the ratios within a round. The extra "reference" installs PyTorch:

    python scripts/bench/adam_vs_torch.py [--size N] [--rounds N] [--json]
"""

import argparse
import json
import os
import statistics
import time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and PyTorch are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

from pympi_train.backends.select import present, select  # noqa: E402
from pympi_train.flat.memory import Layout, Tensor, empty_block  # noqa: E402
from pympi_train.optim.adam import Adam  # noqa: E402

LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8
REFERENCE = "torch fused"


def torch_fused(start, grad):
    params = torch.nn.Parameter(torch.from_numpy(start.copy()))
    params.grad = torch.from_numpy(grad.copy())
    adam = torch.optim.Adam([params], lr=LR, betas=BETAS, eps=EPS, fused=True)
    return adam.step, params.detach().numpy()


def ours(backend, start, grad):
    layout = Layout([Tensor("w", (start.size,))], start.dtype)
    params, gradient = empty_block(layout), empty_block(layout)
    params[: start.size], gradient[: start.size] = start, grad
    adam = Adam(lr=LR, betas=BETAS, eps=EPS)
    adam.allocate(layout, backend.ops)
    step = {"lr": LR, "grad_scale": 1.0, "l2": 0.0}
    return lambda: adam.update(params, gradient, **step), params[: start.size]


def naive(start, grad):
    """The formulas, written in the obvious way."""
    params, state = start.copy(), {"m": np.zeros_like(start), "v": np.zeros_like(start)}
    state["t"] = 0

    def step():
        state["t"] += 1
        t, (b1, b2) = state["t"], BETAS
        state["m"] = b1 * state["m"] + (1 - b1) * grad
        state["v"] = b2 * state["v"] + (1 - b2) * grad**2
        m_hat = state["m"] / (1 - b1**t)
        v_hat = state["v"] / (1 - b2**t)
        params[:] = params - LR * m_hat / (np.sqrt(v_hat) + EPS)

    return step, params


def measure(size, rounds):
    """Return medians and ratios to PyTorch by version."""
    rng = np.random.default_rng(0)
    start, grad = (rng.standard_normal(size, dtype=np.float32) for _ in range(2))
    versions = {REFERENCE: torch_fused(start, grad)}
    versions |= {name: ours(select(name), start, grad) for name in present()}
    versions["naive numpy"] = naive(start, grad)
    seconds = {name: [] for name in versions}
    for _ in range(2 + rounds):  # two warm-up rounds: compilation, first touch
        for name, (step, _) in versions.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    expected = versions[REFERENCE][1]
    for name, (_, params) in versions.items():
        error = float(np.max(np.abs(params - expected)))
        if error > 1e-5:
            raise SystemExit(f"{name} differs from PyTorch by {error}: no comparison")
    reference = seconds[REFERENCE][2:]
    return {
        name: {
            "median_s": statistics.median(taken[2:]),
            "ratio": statistics.median(a / b for a, b in zip(taken[2:], reference)),
        }
        for name, taken in seconds.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=25_000_000, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object, no table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.size, arguments.rounds)
    if arguments.json:
        print(json.dumps({"size": arguments.size, "versions": found}))
        return
    print(f"Adam, {arguments.size:,} float32 parameters, one thread")
    for name, row in found.items():
        print(f"{name:12} {1e3 * row['median_s']:8.1f} ms {row['ratio']:7.2f} x")


if __name__ == "__main__":
    main()
