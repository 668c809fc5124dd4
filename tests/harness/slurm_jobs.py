"""A SLURM for tests, started by scripts/dev/slurm, and jobs in it."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240.0
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
EPOCHS = 40
CONFIG = f"""\
[data]
train = "{ROOT}/examples/digits.npz"
features = "X"
target = "y"
validation = 0.2
[model]
kind = "mlp"
hidden = [384, 384]
[train]
epochs = {EPOCHS}
batch_size = 64
backend = "numpy"
[output]
directory = "run"
"""


class NoSlurm(Exception):
    """The daemons cannot start here; the message says why."""


class Slurm:
    """A SLURM of four nodes in a folder of its own, until ``close``."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="pt-slurm-"))
        variables = ("SLURM_", "SBATCH_", "PMI_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(variables)}
        self.env |= {
            "SLURM_DEV_DIR": str(self.folder / "s"),
            "SLURM_DEV_PORT": str(random.randrange(20_000, 30_000)),
            "SLURM_CONF": str(self.folder / "s" / "slurm.conf"),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),  # no site.toml of a user
            "OMP_NUM_THREADS": "1",
        }
        # In the environment of all of its processes, and of no other SLURM's.
        self.conf = {b"SLURM_CONF": self.env["SLURM_CONF"].encode()}
        done = self._script("up")
        if done.returncode:
            self.close()
            raise NoSlurm(done.stderr.strip().splitlines()[-1])
        self.plugin = self._plugin()

    def _plugin(self):
        """Return srun's plugin for the MPI library of this environment."""
        code = (
            "import sys; from pympi_train.slurm.tools import find_plugin\n"
            "try: print(find_plugin([sys.executable]))\n"
            "except Exception as error: sys.exit(str(error))"
        )
        argv, how = [sys.executable, "-c", code], {"env": self.env, "cwd": self.folder}
        done = subprocess.run(argv, **how, capture_output=True, text=True)
        if done.returncode:
            self.close()
            raise NoSlurm(done.stderr.strip())
        return done.stdout.strip()

    def _script(self, word):
        argv = [ROOT / "scripts" / "dev" / "slurm", word]
        how = {"env": self.env, "cwd": self.folder}
        return subprocess.run(argv, **how, capture_output=True, text=True)

    def close(self):
        self._script("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def tool(self, *argv, cwd=None, status=0):
        """Run a program of SLURM, or of ours, away from the checkout.

        ``cwd`` is the folder of this SLURM by default, since `sbatch` writes
        slurm-N.out where it is called. Returns what the program printed.
        """
        done = subprocess.run(
            list(map(str, argv)),
            env=self.env,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert status is None or done.returncode == status, done.stderr + done.stdout
        return done.stdout + done.stderr

    def command(self, cwd, *words, status=0):
        """Run ``pympi-train slurm`` on a small configuration, which it makes."""
        path = cwd / "train.toml"
        if not path.exists():
            path.write_text(CONFIG)
        argv = [sys.executable, "-m", "pympi_train", "slurm", path]
        return self.tool(*argv, *words, cwd=cwd, status=status)

    def submit(self, cwd, *words, n_nodes=2, time_limit="00:10:00"):
        """Submit a job of two ranks or more; return a `Job`."""
        shape = ["--nodes", n_nodes, "--ntasks-per-node", 1, "--cpus-per-task", 2]
        how = [*shape, "--time", time_limit, "--submit", "--json"]
        said = self.command(cwd, *how, *words)
        number = json.loads(said.splitlines()[-2 if "warning" in said else 0])["job"]
        return Job(self, number, cwd)


class Job:
    """A job that was submitted in a folder."""

    def __init__(self, slurm, number, cwd):
        self.slurm, self.number, self.cwd = slurm, number, cwd

    def field(self, name):
        """A value of ``scontrol show job``."""
        text = self.slurm.tool("scontrol", "show", "job", self.number)
        return re.search(rf"(?:^|\s){name}=(\S*)", text)[1]

    @property
    def state(self):
        return self.field("JobState")

    @property
    def restarts(self):
        return int(self.field("Restarts"))

    def output(self):
        files = sorted(self.cwd.glob("*.out"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def wait(self, is_so, what):
        """Poll until ``is_so()``."""
        end_s = time.monotonic() + TIMEOUT_S
        while not (found := is_so()):
            assert time.monotonic() < end_s, f"no {what}: {self.state}\n{self.output()}"
            time.sleep(0.1)
        return found

    def wait_for_steps(self, run="run"):
        """Wait until the training is in its epochs, and has begun more than before."""
        path = self.cwd / run / "metrics.jsonl"
        before = self.n_records(path)
        self.wait(lambda: self.n_records(path) > before, "training")

    @staticmethod
    def n_records(path):
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_for_restart(self, n):
        """Wait until the job was requeued n times, and let it begin at once."""
        self.wait(lambda: self.restarts >= n, f"requeue {n}")
        self.start_now()

    def start_now(self):
        """Start a requeued job without the two minutes that SLURM waits."""

        def begins():
            if self.state == "PENDING" and not self.is_cleaning_up():
                time.sleep(2.0)  # credentials of the second of the requeue are void
                argv = "scontrol", "update", f"jobid={self.number}", "StartTime=now"
                self.slurm.tool(*argv, status=None)
            return self.state in (*FINAL, "RUNNING")

        self.wait(begins, "start")

    def is_cleaning_up(self):
        """Whether the nodes still have processes of the life before.

        A step that begins before the old one of its number has gone loses its socket of
        PMI2 to it, and dies in MPI_Finalize: "failed to send temp kvs". The two minutes
        are there for this.
        """
        title = f"slurmstepd: [{self.field('JobId')}.".encode()
        return self.field("Reason") != "BeginTime" or any(
            words[0].startswith(title) and self.slurm.conf.items() <= values.items()
            for words, values in processes().values()
        )

    def wait_for_end(self):
        return self.wait(lambda: self.state in FINAL and self.state, "end")

    def ranks(self):
        """The processes of the training, by rank."""
        wanted = {b"SLURM_JOB_ID": self.field("JobId").encode(), **self.slurm.conf}
        found = {}
        for pid, (words, values) in processes().items():
            is_rank = b"python" in words[0] and b"pympi_train" in words
            is_rank = is_rank and b"SLURM_STEP_ID" in values
            if is_rank and wanted.items() <= values.items():
                found[int(values[b"SLURM_PROCID"])] = pid
        return found

    def kill(self, rank, number=signal.SIGUSR1, after_s=0.0):
        """Send a signal to one rank, so long after it began to handle signals."""
        pid = self.wait(lambda: self.ranks().get(rank), f"rank {rank}")
        self.wait(lambda: handles_signals(pid), f"handler of rank {rank}")
        time.sleep(after_s)
        os.kill(pid, number)


def handles_signals(pid):
    """Whether a process has a handler for SIGUSR1."""
    text = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", text)[1], 16)
    return bool(caught >> (signal.SIGUSR1 - 1) & 1)


def processes():
    """Words and environment of each process of this machine, by its number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        values = dict(entry.split(b"=", 1) for entry in environ if b"=" in entry)
        found[int(folder.name)] = words, values
    return found


def weights_hash(folder):
    return json.loads((folder / "result.json").read_text())["weights_sha256"]
