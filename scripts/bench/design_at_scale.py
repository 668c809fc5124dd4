#!/usr/bin/env python
"""A rank's work in Python by the number of ranks, from 10 to 100,000.

The communicator is a mock whose collectives return at once, so that only the program's
own work is timed: bookkeeping, tables of ranks, and the pickles that an allgather of
objects unpacks. Prints milliseconds of the processor, which other programs do not
change much, and peak bytes of each piece, the exponent of their growth between the last
two numbers of ranks, and the file that does the work. ``design_cases`` has the pieces.

    python scripts/bench/design_at_scale.py [--sizes P,P,...] [--only TEXT]
"""

import argparse
import gc
import math
import time
import tracemalloc

from design_cases import rare, starts, steps  # noqa: F401: they add their cases
from design_cases.mock import CASES

ORDER = "step", "second", "epoch", "start", "change", "checkpoint", "resume"


def measure(make, size):
    """Return (least processor seconds of a call, its peak bytes, bytes kept)."""
    gc.collect()
    tracemalloc.start()
    call = make(size)
    call()  # what is cached, is cached
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 0.05 and len(seconds) < 30):
        began_s = time.process_time()
        call()
        seconds.append(time.process_time() - began_s)
    return min(seconds), max(peak - kept, 0), kept


def exponent(before, after, sizes):
    """Return b of ``after / before = (P2 / P1)^b``."""
    if before <= 0 or after <= 0:
        return 0.0
    return math.log(after / before) / math.log(sizes[1] / sizes[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10,100,1000,10000,100000")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    heads = ["when", "what", *(f"P = {p:,}" for p in sizes), "exponent"]
    heads += ["MB at most", "exponent", "file"]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for when, name, file, make in sorted(CASES, key=lambda c: ORDER.index(c[0])):
        if args.only not in name:
            continue
        found = [measure(make, size) for size in sizes]
        ms = [f"{1e3 * seconds:.3g}" for seconds, _, _ in found]
        last = [(s, peak + kept) for s, peak, kept in found[-2:]]
        growth = [f"{exponent(*pair, sizes[-2:]):.2f}" for pair in zip(*last)]
        row = [when, name, *ms, growth[0], f"{last[-1][1] / 1e6:.1f}", growth[1], file]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
