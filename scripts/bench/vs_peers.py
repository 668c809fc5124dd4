"""Time this package beside its peers; print one table of ratios in Markdown.

    pip install -e '.[mpich,fast,test]'
    python scripts/bench/vs_peers.py [--peers torch,vw] [--parts fits] [--repeats 2]

Peers: PyTorch DDP, JAX, NumPy with mpi4py, scikit-learn, LIBLINEAR and Vowpal Wabbit.
Each but NumPy is installed, at the versions in scripts/bench/peers/*.txt, into an
environment of its own (.venv-peer-*) in the current folder. ``peers/steps.py`` and
``peers/fits.py`` say what is timed.

The sides take turns, so that changes of the machine affect all. A ratio is the peer's
time divided by ours in a round: above 1 this package is faster. The table has the
medians over the rounds, and the smallest and largest ratio.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from peers import fits, steps
from peers.environments import HERE, INSTALLED, environment

NAMES = {
    "torch": "PyTorch DDP",
    "jax": "JAX",
    "plain": "plain NumPy",
    "sklearn": "scikit-learn",
    "liblinear": "LIBLINEAR",
    "vw": "Vowpal Wabbit",
}
PARTS = {"steps": steps, "fits": fits}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(NAMES))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    peers, parts = args.peers.split(","), args.parts.split(",")
    for option, given, known in (("peers", peers, NAMES), ("parts", parts, PARTS)):
        if unknown := [one for one in given if one not in known]:
            parser.error(f"--{option} {unknown[0]}: expected {', '.join(known)}")
    wanted = {*peers, *(["liblinear"] if "fits" in parts else [])}
    pythons = {peer: environment(peer) for peer in INSTALLED if peer in wanted}
    began_s, load = time.monotonic(), os.getloadavg()[0]
    if not args.json:
        print(heading(peers, load))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            extra = [Path(folder)] if part == "fits" else []
            for row in PARTS[part].measure(peers, pythons, args.repeats, *extra):
                found.append(row)
                if not args.json:
                    print("\n".join(lines(*row, peers)), flush=True)
    if args.json:
        print(json.dumps(found))
    else:
        print(f"\nIn {(time.monotonic() - began_s) / 60:.1f} minutes.")


def heading(peers, load):
    """Return machine, versions and the head of the table."""
    versions = [f"NumPy {metadata.version('numpy')}"]
    for peer in peers:
        if peer in INSTALLED:
            first = (HERE / f"{peer}.txt").read_text().splitlines()[0]
            versions.append(f"{NAMES[peer]} {first.partition('==')[2]}")
    head = ["what", "ranks", "this package", *(NAMES[peer] for peer in peers)]
    about = (
        f"{datetime.date.today()}, {processor()}, {len(os.sched_getaffinity(0))} cores,"
        f" load {load:.1f} before; Python {platform.python_version()};"
        f" {', '.join(versions)}."
    )
    rule = "|---" * len(head) + "|"
    command = f"`python {' '.join(sys.argv)}`"
    return f"{command}, {about}\n\n| {' | '.join(head)} |\n{rule}"


def processor():
    """Return the processor's name."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1] for line in file if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def lines(question, rounds, peers):
    """Return a line of the table for each number of ranks."""
    sides = {"ours": 1, "ours 2": 2} if "ours 2" in rounds else {"ours": steps.RANKS}
    made = []
    for ours, n_ranks in sides.items():
        cells = [question, str(n_ranks), seconds(rounds[ours])]
        cells += [ratio(rounds[ours], rounds.get(peer)) for peer in peers]
        made.append(f"| {' | '.join(cells)} |")
    return made


def seconds(values):
    """Return the median of some seconds; a round that did not get there has None."""
    if None in values:
        return "not reached"
    middle = statistics.median(values)
    return f"{middle:.2f} s" if middle >= 1 else f"{1e3 * middle:.3g} ms"


def ratio(ours, theirs):
    """Return the ratios of the rounds; a dash for a question that a peer has not."""
    if theirs is None:
        return "-"
    if None in ours or None in theirs:
        return seconds(theirs)
    ratios = sorted(b / a for a, b in zip(ours, theirs))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
