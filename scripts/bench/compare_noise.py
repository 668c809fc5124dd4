"""False alarms and found slow-downs of ``bench compare``, on simulated noise.

    python scripts/bench/compare_noise.py

Each comparison has 20 benchmarks. Rounds have noise of 3 %; the logarithm of a disturbed
one grows by 0.5 on average. Equal code is compared with ``--by 0``, the hardest case, and
a slow-down by 20 % with ``--by 0.05``.
"""

import numpy as np

from pympi_train.bench.suite.compare import ratio_interval

COMPARISONS, BENCHMARKS, NOISE = 300, 20, 0.03


def rounds(rng, n, disturbed):
    """Return the logarithms of the seconds of ``n`` rounds."""
    slow = (rng.random(n) < disturbed) * rng.exponential(0.5, n)
    return (rng.normal(0, NOISE, n) + slow).tolist()


def main():
    """Print a row for each number of rounds and share of disturbed rounds."""
    tail = 0.025 / BENCHMARKS
    print("rounds  disturbed  false alarms  20 % slower is found")
    for n in (5, 10):
        for disturbed in (0.0, 0.1):
            rng, alarms, found = np.random.default_rng(0), 0, 0
            for _ in range(COMPARISONS):
                sides = [
                    (rounds(rng, n, disturbed), rounds(rng, n, disturbed))
                    for _ in range(BENCHMARKS)
                ]
                lows = [ratio_interval(*both, tail)[1][0] for both in sides]
                alarms += max(lows) > 1
                found += lows[0] * 1.2 > 1.05
            a, f = (100 * count / COMPARISONS for count in (alarms, found))
            print(f"{n:6}  {100 * disturbed:7.0f} %  {a:10.1f} %  {f:18.1f} %")


if __name__ == "__main__":
    main()
