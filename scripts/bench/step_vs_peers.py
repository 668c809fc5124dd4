"""Time one training step on two ranks with this package, PyTorch DDP, JAX and NumPy.

    pip install -e '.[mpich,fast]'
    python scripts/bench/step_vs_peers.py [--peers torch,jax,plain] [--repeats 5]

Same models, same rows per rank, float32, Adam, one thread per rank. PyTorch: gloo and
Adam(fused=True); JAX: jitted, gloo; plain: NumPy and mpi4py as in educational codes.
PyTorch and JAX are installed, at the versions in scripts/bench/peers/*.txt, into
environments of their own (.venv-peer-*). The sides take turns, so that changes of the
machine affect all; a figure is the median over the repeats of the slowest rank's median
step, and a ratio is that of a round.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

CASES = (  # model, layers, rows per rank, steps
    ("softmax", "784,10", 64, 1000),
    ("logistic", "1000,1", 256, 1000),
    ("mlp", "784,512,512,10", 64, 200),
    ("mlp", "784,512,512,10", 256, 100),
    ("mlp", "300,700,700,700,50", 96, 100),
    ("mlp", "1024,2048,2048,1000", 64, 30),
)
RANKS = 2
MPIRUN = [str(Path(sys.executable).parent / "mpirun"), "-n", str(RANKS), sys.executable]
HERE = Path(__file__).parent / "peers"
INSTALLED = ("torch", "jax")  # the others need this environment alone
TIMEOUT_S = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="torch,jax,plain")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    peers = args.peers.split(",")
    if unknown := [peer for peer in peers if peer not in (*INSTALLED, "plain")]:
        parser.error(f"--peers {unknown[0]}: expected torch, jax or plain")
    pythons = {peer: environment(peer) for peer in peers if peer in INSTALLED}
    found = []
    for case in CASES:
        found.append(compare(case, peers, pythons, args.repeats))
        if not args.json:
            tell(found[-1], peers, is_first=len(found) == 1)
    if args.json:
        print(json.dumps(found))


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


def compare(case, peers, pythons, repeats):
    """Time all sides in turn; return their seconds of each round."""
    task = list(map(str, case))
    model, layers, rows, steps = task
    ours = ["-m", "pympi_train", "bench", "step", "--json", "--model", model]
    ours += ["--layers", layers, "--batch-size", rows, "--steps", steps]
    rounds: dict = {name: [] for name in ("ours", *peers)}
    for _ in range(repeats):
        rounds["ours"].append(run([[*MPIRUN, *ours]]))
        for peer in peers:
            worker = str(HERE / f"{peer}_step.py")
            if peer in pythons:
                start, port = [pythons[peer], worker], str(free_port())
                ends = [[str(i), str(RANKS), port, *task] for i in range(RANKS)]
                rounds[peer].append(run([[*start, *end] for end in ends]))
            else:
                rounds[peer].append(run([[*MPIRUN, worker, *task]]))
    return {"case": f"{model} {layers}, {rows} a rank", "seconds": rounds}


def run(commands):
    """Run commands at once; return the seconds of a step that the first one prints."""
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    started = [
        subprocess.Popen(
            argv,
            env={**os.environ, **one_thread, **(root if os.geteuid() == 0 else {})},
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
    return json.loads(found[0][0].splitlines()[-1])["median_step_s"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tell(row, peers, is_first):
    """Print a line of the table: seconds, and the ratios to ours by round."""
    if is_first:
        print(f"{'model':34}  {'ours':>10}  " + "  ".join(f"{p:>26}" for p in peers))
    seconds = row["seconds"]
    parts = [f"{1e3 * statistics.median(seconds['ours']):7.3f} ms"]
    for peer in peers:
        ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds[peer]))
        middle = statistics.median(ratios)
        spread = f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        took = f"{1e3 * statistics.median(seconds[peer]):.3f} ms"
        parts.append(f"{took:>11} {middle:5.2f} {spread}")
    print(f"{row['case']:34}  " + "  ".join(f"{p:>10}" for p in parts), flush=True)


if __name__ == "__main__":
    main()
