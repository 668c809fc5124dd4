"""The step of ``vs_peers.py`` in scikit-learn: ``MLPClassifier.partial_fit``.

One process takes the rows of all ranks, with a thread of BLAS for each of them. Without
hidden layers, MLPClassifier is softmax or logistic regression.
"""

import json
import statistics
import sys
import time

import numpy as np
from sklearn.neural_network import MLPClassifier


def main(layers, n_rows, steps):
    rng = np.random.default_rng(0)
    n_classes = max(2, layers[-1])
    x = rng.standard_normal((n_rows, layers[0])).astype(np.float32)
    y = rng.integers(0, n_classes, n_rows)
    settings = {"solver": "adam", "learning_rate_init": 1e-3, "alpha": 0.0}
    model = MLPClassifier(
        tuple(layers[1:-1]), batch_size=n_rows, shuffle=False, **settings
    )
    model.partial_fit(x, y, classes=np.arange(n_classes))
    seconds = []
    for _ in range(steps // 10 + steps):
        last = time.perf_counter()
        model.partial_fit(x, y)
        seconds.append(time.perf_counter() - last)
    found = statistics.median(seconds[-steps:])
    print(json.dumps({"median_step_s": found}), flush=True)


if __name__ == "__main__":
    layers, n_rows, steps = sys.argv[1:]
    main([int(n) for n in layers.split(",")], int(n_rows), int(steps))
