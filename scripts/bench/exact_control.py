#!/usr/bin/env python
"""What the control message of exact mode costs by the number of ranks.

Bytes of the message with a group of rows for each rank, the rank's own work, and the
time on a simulated fat tree of 64 ranks and 100 Gbit/s a node.

    python scripts/bench/exact_control.py [P ...]
"""

import sys

import numpy as np
from design_at_scale import measure
from design_cases.steps import slots

from pympi_train.scaling.simulation.networks import FatTree
from pympi_train.scaling.simulation.rounds import Collectives, advance

SIZES = (1024, 8192, 65_536, 98_304)
GROUP_BYTES = 24  # weight, loss and number of micro-batches


def main():
    network = FatTree(ranks_per_node=64, bytes_per_s=12.5e9, latency_s=2e-6, taper=2.0)
    print("| P | kB | own work, ms | network, ms |\n|---|---|---|---|")
    for size in map(int, sys.argv[1:] or SIZES):
        rounds = Collectives(network, np.arange(size)).allreduce(GROUP_BYTES * size)
        network_s = advance(np.zeros(size), rounds).max()
        own_s, *_ = measure(slots, size)
        n_kb = GROUP_BYTES * size / 1e3
        print(f"| {size:,} | {n_kb:,.0f} | {1e3 * own_s:.2f} | {1e3 * network_s:.2f} |")


if __name__ == "__main__":
    main()
