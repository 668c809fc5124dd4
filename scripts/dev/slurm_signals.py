#!/usr/bin/env python3
"""Random signals to random ranks in a real SLURM: each is saved and requeued once.

    scripts/dev/slurm_signals.py [--signals N] [--seed SEED]

Starts a SLURM of virtual nodes (scripts/dev/slurm), and trains on two of them again
and again. SIGTERM or SIGUSR1 goes to one rank at a random moment after it began to
handle signals: while data are loaded, in the first step, in an epoch, in a save.
Prints how many signals led to one checkpoint and one requeue, and whether the weights
are those of a training without signals. The exit status is 1 if anything differs.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
EPOCHS = ["--set", "train.epochs=60"]
SIGNALS_OF_A_JOB = 20
LATEST_S = 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import slurm_jobs

    slurm, rng = slurm_jobs.Slurm(), random.Random(args.seed)
    began_s, n_sent, n_good, n_jobs, n_same = time.monotonic(), 0, 0, 0, 0
    try:
        with tempfile.TemporaryDirectory() as scratch:
            want = run(slurm, Path(scratch) / "whole", 0, rng)[2]
            while n_sent < args.signals:
                n_jobs += 1
                n = min(SIGNALS_OF_A_JOB, args.signals - n_sent)
                folder = Path(scratch) / str(n_jobs)
                sent, good, found, story = run(slurm, folder, n, rng)
                n_sent, n_good = n_sent + sent, n_good + good
                n_same += found == want
                print(f"{n_good} of {n_sent} signals; {story}", flush=True)
    finally:
        slurm.close()
    print(
        f"{n_good} of {n_sent} signals saved and requeued once; {n_same} of {n_jobs} "
        f"jobs with the weights of a training without signals; "
        f"{time.monotonic() - began_s:.0f} s"
    )
    return n_good != n_sent or n_same != n_jobs


def run(slurm, folder, n_signals, rng):
    """Train with signals; return (number sent, obeyed, hash of weights, a line)."""
    import slurm_jobs

    folder.mkdir()
    job, n, n_good = slurm.submit(folder, *EPOCHS), 0, 0
    while n < n_signals:
        number = rng.choice([signal.SIGTERM, signal.SIGUSR1])
        try:
            job.kill(rng.randrange(2), number, after_s=rng.uniform(0, LATEST_S))
        except ProcessLookupError:  # the training was finished
            break
        if (folder / "run" / "result.json").exists():
            break
        n += 1
        job.wait_for_restart(n)
        n_saved = job.output().count('"interrupted": "SIG')
        n_good += job.restarts == n_saved == n
    state = job.wait_for_end()
    if state != "COMPLETED":
        return n, n_good, None, f"{state}: {job.output()[-2000:]}"
    found = slurm_jobs.weights_hash(folder / "run")
    return n, n_good, found, f"job {job.number} completed"


if __name__ == "__main__":
    sys.exit(main())
