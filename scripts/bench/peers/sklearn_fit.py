"""The questions of ``fits.py``, answered by scikit-learn in one process."""

import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import rows
from sklearn.linear_model import LogisticRegression, SGDClassifier


def main(name, held, folder, limit, target):
    x, y = rows.load(folder, name)
    x_held, y_held = rows.load(folder, held)
    warnings.simplefilter("ignore")  # iterations that end before a tolerance

    def solve(tolerance):
        model = LogisticRegression(
            solver="lbfgs", C=1.0, fit_intercept=False, tol=tolerance, max_iter=1000
        )
        began_s = time.perf_counter()
        model.fit(x, y)
        return time.perf_counter() - began_s, model.coef_

    found = {"solve": rows.solved(solve, x, y, limit)}
    model = SGDClassifier(loss="log_loss", random_state=0)  # its default rate and L2
    times, loss = [], float("inf")
    for n_epochs in range(1, 11):
        began_s = time.perf_counter()
        model.partial_fit(x, y, classes=[0, 1])  # all rows: an epoch, shuffled
        times.append(time.perf_counter() - began_s)
        if "score" not in found:
            loss = rows.log_losses(model.decision_function(x_held), y_held).mean()
            if loss <= target:
                found["score"] = {"s": sum(times), "epochs": n_epochs}
        if "score" in found and n_epochs >= 6:
            break
    found.setdefault("score", {"s": None, "loss": float(loss)})
    found["epoch"] = {"s": statistics.median(times[1:])}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    name, held, folder, limit, target = sys.argv[1:]
    main(name, held, Path(folder), float(limit), float(target))
