"""ReFrame test: ``pympi-train bench all`` on a site's partitions, against references.

    reframe -C SITE.py -c scripts/reframe/pympi_train_bench.py -r

Without a file SITE.py of the site, scripts/reframe/one_node.py runs it on this node.
References of a machine are REFERENCES below, or a result of bench all:

    -S BenchAll.result=REFERENCE.json

Then the test fails if ``bench compare`` finds something slower by more than ``by``.
Tested with ReFrame 4.10.
"""

import json
import os
import shlex

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import (
    parameter,
    performance_function,
    run_after,
    run_before,
    sanity_function,
    variable,
)
from reframe.core.exceptions import SanityError

OUTPUT = "bench.json"
SCHEMA = "pympi-train/bench/1"
# By partition, "system:partition": (value, smallest and largest deviation, unit).
# "*" is any partition; with None as deviation, the value is recorded and not checked.
REFERENCES = {
    "*": {
        "triad": (0, None, None, "B/s"),
        "product": (0, None, None, "FLOP/s"),
        "exchange": (0, None, None, "s"),
        "step": (0, None, None, "rows/s"),
        "read": (0, None, None, "B/s"),
        "checkpoint": (0, None, None, "B/s"),
        "start": (0, None, None, "s"),
    },
}


@rfm.simple_test
class BenchAll(rfm.RunOnlyRegressionTest):
    """Times everything that a training does, on ``ranks`` ranks."""

    ranks = parameter([2])  # two or more, such as those of one node and of two
    quick = variable(bool, value=False)
    folder = variable(str, value=".")  # on the file system to measure
    result = variable(str, value="")  # of an earlier bench all, to compare with
    by = variable(float, value=0.05)

    descr = "pympi-train bench all"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    executable = "pympi-train"
    time_limit = "20m"
    reference = REFERENCES
    keep_files = [OUTPUT]

    @run_after("init")
    def set_command(self):
        self.num_tasks = self.ranks
        self.executable_opts = ["bench", "all", "--output", OUTPUT]
        self.executable_opts += ["--folder", shlex.quote(self.folder)]
        if self.quick:
            self.executable_opts.append("--quick")

    @run_before("run")
    def compare_afterwards(self):
        if self.result:
            self.keep_files = [OUTPUT, "compared.txt"]
            before = shlex.quote(os.path.abspath(self.result))
            self.postrun_cmds = [
                f"pympi-train bench compare {before} {OUTPUT} --by {self.by} "
                ">compared.txt; echo compared: $?"
            ]

    def _found(self):
        with open(os.path.join(self.stagedir, OUTPUT), encoding="utf-8") as file:
            return json.load(file)

    def _of(self, name, key):
        for one in self._found()["benchmarks"]:
            if one["name"] == name:
                return one[key]
        raise SanityError(f"{OUTPUT} has no benchmark {name}")

    @sanity_function
    def check(self):
        checks = [
            sn.assert_found(rf"wrote {OUTPUT}", self.stdout),
            sn.assert_eq(sn.defer(self._found()["schema"]), SCHEMA),
            sn.assert_eq(sn.defer(self._found()["ranks"]), self.ranks),
        ]
        if self.result:
            text = "something became slower: see compared.txt"
            checks.append(sn.assert_found(r"compared: 0", self.stdout, msg=text))
        return sn.all(checks)

    @performance_function("B/s")
    def triad(self):
        return self._of("kernels/triad", "bytes_per_s")

    @performance_function("FLOP/s")
    def product(self):
        return self._of("kernels/matmul", "flops_per_s")

    @performance_function("s")
    def exchange(self):
        return self._of("exchange/allreduce 4096", "median_s")

    @performance_function("rows/s")
    def step(self):
        return self._of("step/mlp allreduce", "rows_per_s")

    @performance_function("B/s")
    def read(self):
        return self._of("input/read", "bytes_per_s") * self.ranks

    @performance_function("B/s")
    def checkpoint(self):
        return self._of("checkpoint/save", "bytes_per_s") * self.ranks

    @performance_function("s")
    def start(self):
        parts = ("python", "mpi", "imports")
        return sum(self._of(f"start-up/{part}", "median_s") for part in parts)
