"""The questions of ``fits.py``, answered by LIBLINEAR in one process.

Its Newton method (solver 0: logistic loss, L2, no intercept) has no epochs.
``reference`` is the least objective, for the limit of all sides.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import rows
from liblinear.liblinearutil import problem, train


def main(name, held, folder, limit, target):
    x, y = rows.load(folder, name)
    x_held, y_held = rows.load(folder, held)
    made = problem(np.where(y == 1, 1.0, -1.0), x.astype(np.float64))  # not timed

    def solve(tolerance):
        began_s = time.perf_counter()
        model = train(made, f"-s 0 -c 1 -e {tolerance} -q")
        seconds = time.perf_counter() - began_s
        # Its first class is that of the first row.
        weights = np.array(model.get_decfun()[0])
        return seconds, weights if model.get_labels()[0] == 1 else -weights

    if limit == 0.0:
        _, weights = solve(1e-6)
        return {"reference": rows.objective(x, y, weights)}
    found = {"solve": rows.solved(solve, x, y, limit)}
    seconds, weights = solve(1e-2)  # its default
    loss = float(rows.log_losses(x_held @ weights, y_held).mean())
    found["score"] = {"s": seconds if loss <= target else None, "loss": loss}
    return found


if __name__ == "__main__":
    name, held, folder, limit, target = sys.argv[1:]
    found = main(name, held, Path(folder), float(limit), float(target))
    print(json.dumps(found), flush=True)
