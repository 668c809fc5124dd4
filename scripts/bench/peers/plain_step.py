"""The step of ``vs_peers.py`` as one writes it in plain NumPy and mpi4py.

As in educational codes: a new array for each intermediate result, an Allreduce for each
tensor, Adam by whole-array expressions.
"""

import json
import sys
import time

import numpy as np
from mpi4py import MPI

BETA1, BETA2, EPSILON, RATE = 0.9, 0.999, 1e-8, 1e-3


def main(model, layers, n_rows, steps):
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(comm.rank)
    x = rng.standard_normal((n_rows, layers[0])).astype(np.float32)
    y = rng.integers(0, max(2, layers[-1]), n_rows)
    params = first_params(layers)
    m = [np.zeros_like(p) for p in params]
    v = [np.zeros_like(p) for p in params]
    seconds = []
    for count in range(1, 2 + steps // 10 + steps):
        last = time.perf_counter()
        grads = gradient(model, params, x, y, n_rows * comm.size)
        for grad in grads:
            comm.Allreduce(MPI.IN_PLACE, grad)
        for i, grad in enumerate(grads):
            m[i] = BETA1 * m[i] + (1 - BETA1) * grad
            v[i] = BETA2 * v[i] + (1 - BETA2) * grad**2
            m_hat = m[i] / (1 - BETA1**count)
            v_hat = v[i] / (1 - BETA2**count)
            params[i] = params[i] - RATE * m_hat / (np.sqrt(v_hat) + EPSILON)
        seconds.append(time.perf_counter() - last)
    slowest = np.array(seconds[-steps:])
    comm.Allreduce(MPI.IN_PLACE, slowest, op=MPI.MAX)
    if comm.rank == 0:
        print(json.dumps({"median_step_s": float(np.median(slowest))}), flush=True)


def first_params(layers):
    """Return weights and biases in turn."""
    rng, params = np.random.default_rng(0), []
    for n_in, n_out in zip(layers, layers[1:]):
        weights = rng.standard_normal((n_in, n_out)) / n_in**0.5
        params += [weights.astype(np.float32), np.zeros(n_out, np.float32)]
    return params


def gradient(model, params, x, y, n_all):
    """Return the gradients of the mean loss over ``n_all`` rows, of these rows."""
    inputs, n_layers = [x], len(params) // 2
    for i in range(n_layers):
        z = inputs[-1] @ params[2 * i] + params[2 * i + 1]
        inputs.append(np.maximum(z, 0) if i < n_layers - 1 else z)
    z = inputs.pop()
    if model == "logistic":
        delta = (1 / (1 + np.exp(-z)) - y[:, None]) / n_all
    else:
        exps = np.exp(z - z.max(axis=1, keepdims=True))
        delta = exps / exps.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        delta = delta / n_all
    delta, grads = delta.astype(np.float32), []
    for i in reversed(range(n_layers)):
        grads = [inputs[i].T @ delta, delta.sum(axis=0), *grads]
        if i:
            delta = (delta @ params[2 * i].T) * (inputs[i] > 0)
    return grads


if __name__ == "__main__":
    model, layers, n_rows, steps = sys.argv[1:]
    main(model, [int(n) for n in layers.split(",")], int(n_rows), int(steps))
