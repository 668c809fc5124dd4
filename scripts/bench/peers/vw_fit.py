"""The questions of ``fits.py``, answered by Vowpal Wabbit in one process.

It updates after each row, with its default rates, and reads its binary cache in a
second thread. Its environment has no NumPy.
"""

import json
import math
import statistics
import sys
import time
from pathlib import Path

from vowpalwabbit import Workspace

SETTINGS = "--loss_function logistic --holdout_off --quiet -b 18"


def main(name, held, folder, target):
    train = f"{SETTINGS} -d {folder / name}.vw --cache_file {folder / name}.cache"
    model, raw = folder / "vw_model", folder / "vw_raw"
    with open(folder / f"{held}.vw", encoding="ascii") as file:
        labels = [float(line.split(None, 1)[0]) for line in file]
    run(train)  # writes the cache
    found = {"epoch": {"s": statistics.median(run(train) for _ in range(3))}}
    for passes in range(1, 11):
        seconds = run(f"{train} --passes {passes} -f {model}")
        run(f"--quiet -t -i {model} -d {folder / held}.vw -r {raw}")
        with open(raw, encoding="ascii") as file:
            scores = [float(line.split()[0]) for line in file]
        losses = [math.log1p(math.exp(-y * s)) for y, s in zip(labels, scores)]
        loss = statistics.fmean(losses)
        if loss <= target:
            found["score"] = {"s": seconds, "epochs": passes}
            break
    else:
        found["score"] = {"s": None, "loss": loss}
    print(json.dumps(found), flush=True)


def run(arguments):
    """Return the seconds of a run of Vowpal Wabbit over its data."""
    began_s = time.perf_counter()
    workspace = Workspace(arguments)  # reads the data
    seconds = time.perf_counter() - began_s
    workspace.finish()
    return seconds


if __name__ == "__main__":
    name, held, folder, _, target = sys.argv[1:]
    main(name, held, Path(folder), float(target))
