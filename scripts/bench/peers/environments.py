"""Environments of the peers, and processes in them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = ("torch", "jax", "sklearn", "liblinear", "vw")  # plain needs ours alone
MPIRUN = Path(sys.executable).parent / "mpirun"
TIMEOUT_S = 600


def environment(peer):
    """Return the Python of the peer's own environment; install it if absent."""
    where, wanted = Path(f".venv-peer-{peer}"), HERE / f"{peer}.txt"
    python, done = where / "bin" / "python", where / "installed.txt"
    if done.exists() and done.read_text() == wanted.read_text():
        return str(python.absolute())
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True)
    if peer == "torch":  # the build without CUDA
        subprocess.run([HERE.parents[1] / "install_torch", str(python)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)]
    subprocess.run(install, check=True)
    done.write_text(wanted.read_text())
    return str(python.absolute())


def on_ranks(n_ranks, *argv):
    """Return the command that starts ``argv`` with this Python on so many ranks."""
    return [str(MPIRUN), "-n", str(n_ranks), sys.executable, *argv]


def run(commands, n_threads=1):
    """Run commands at once; return what the last line of the first one's output says.

    Parameters
    ----------
    commands : list of list of str
    n_threads : int
        Threads of each process in BLAS, OpenMP and Numba.

    Returns
    -------
    dict
        The line is JSON. If a command fails, this program ends with its messages.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = {name: str(n_threads) for name in names}
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    started = [
        subprocess.Popen(
            argv,
            env={**os.environ, **threads, **(root if os.geteuid() == 0 else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argv in commands
    ]
    try:
        found = [process.communicate(timeout=TIMEOUT_S) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, argv, (_, errors) in zip(started, commands, found):
        if process.returncode:
            sys.exit(f"{' '.join(argv)} failed:\n{errors}")
    return json.loads(found[0][0].splitlines()[-1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
