"""The gradient of an embedding table, beside obvious ways to compute it.

    pip install -e '.[fast]'
    OMP_NUM_THREADS=1 python scripts/bench/embedding_gradient.py

For each size, milliseconds (the shortest of several calls) of the product with sparse
rows that `layers.embedding` takes, by Numba and NumPy, of a loop in Numba written for
this purpose, and of `np.add.at`.
"""

import time

import numpy as np
from numba import njit

from pympi_train.backends.numba import ops as numba_ops
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.layers.embedding import Embedding

CALLS = 15
SIZES = (  # tokens of the vocabulary, length of a vector, looked-up tokens
    (1000, 32, 1024),
    (1000, 32, 65536),
    (30_000, 64, 65536),
    (50_000, 128, 32768),
)


@njit
def loop(tokens, delta, out):
    out[:] = 0
    for i in range(tokens.size):
        token = tokens[i]
        for j in range(out.shape[1]):
            out[token, j] += delta[i, j]


def add_at(tokens, delta, out):
    out[:] = 0
    np.add.at(out, tokens, delta)


def shortest_ms(function, *args):
    function(*args)  # compiles
    times_s = []
    for _ in range(CALLS):
        start_s = time.perf_counter()
        function(*args)
        times_s.append(time.perf_counter() - start_s)
    return 1e3 * min(times_s)


def main():
    rng = np.random.default_rng(0)
    print("vocabulary  vector   tokens     numba    numpy     loop   add.at  (ms)")
    for n_tokens, width, n in SIZES:
        tokens = rng.integers(0, n_tokens, n)
        delta = rng.standard_normal((n, width)).astype("f4")
        table = np.zeros((n_tokens, width), "f4")
        grads = [np.empty_like(table)]
        found = []
        for ops in (numba_ops, numpy_ops):
            layer = Embedding(n_tokens, width, 1, dtype="float32")
            layer.use(ops, np.dtype("float32"))
            _, saved = layer.forward(tokens[:, None], [table])
            found.append(shortest_ms(layer.backward, delta, saved, [table], grads))
        found += [shortest_ms(f, tokens, delta, grads[0]) for f in (loop, add_at)]
        times = "".join(f"{ms:9.2f}" for ms in found)
        print(f"{n_tokens:10} {width:7} {n:8} {times}")


if __name__ == "__main__":
    main()
