"""Test and measure the GPU path, in the environment of `scripts/gpu/acceptance`.

All parts run even if one fails; the exit status is then 1.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
TOOLS = ("memcheck", "racecheck", "synccheck")
SANITIZED = "not (f64 or sanitized or compiled)"  # sanitizers are slow
LOWEST_SHARE = 0.7  # fraction of a copy's rate below which a kernel is marked as slow
PACKAGES = ("cupy-cuda", "nvidia-", "mpi4py", "numpy", "pympi-train", "torch")


def run(argv, **how):
    """Run a command in the repository; return (exit status, output, seconds)."""
    start = time.perf_counter()
    done = subprocess.run(
        argv,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **how,
    )
    return done.returncode, done.stdout, time.perf_counter() - start


def python(*argv):
    return [sys.executable, *map(str, argv)]


def facts():
    """Return the GPU, the driver and the versions of packages."""
    from pympi_train.backends import gpu

    reason = gpu.unavailable(0)
    if reason:
        return {"failed": reason}
    from pympi_train.backends.cuda import device as cuda
    from pympi_train.backends.cuda import nccl as cuda_nccl

    device = cuda.device()
    versions = {
        name: dist.version
        for dist in metadata.distributions()
        if (name := dist.metadata["Name"] or "").startswith(PACKAGES)
    }
    return {
        "gpu": device.name,
        "capability": device.capability,
        "memory_bytes": device.n_bytes,
        "n_gpus": cuda.runtime.getDeviceCount(),
        "driver": cuda.runtime.driverGetVersion(),
        "nccl": cuda_nccl.unavailable() or "can be loaded",
        "versions": versions,
    }


def tests():
    """Run `pytest -m gpu`: the tests that are emulated on a machine without a GPU."""
    argv = python("-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider")
    status, text, seconds = run(argv)
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", text)
    found = {word: int(n) for n, word in counts}
    found |= {"exit_status": status, "seconds": seconds}
    if status or not found.get("passed"):
        found["failed_because"] = text[-6000:]
    return found


def sanitizers():
    """Run all kernels under each tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if program is None:
        return {"not run": "compute-sanitizer was not found (CUDA toolkit)"}
    found = {}
    for tool in TOOLS:
        argv = [program, f"--tool={tool}", "--error-exitcode=9", "--print-limit=20"]
        argv += python("-m", "pytest", "-m", "gpu", "-q", "-x", "tests/kernels")
        argv += ["-p", "no:cacheprovider", "-k", SANITIZED]
        status, text, seconds = run(argv)
        found[tool] = {"exit_status": status, "seconds": seconds}
        if status or " passed" not in text:
            found[tool]["failed_because"] = text[-6000:]
    return found


def kernels(size, repeats):
    """Measure the bandwidth of every kernel, and of a device-to-device copy."""
    found = {}
    for dtype in ("float32", "float64"):
        argv = python("-m", "pympi_train", "bench", "kernels", "--backend", "cuda")
        argv += ["--dtype", dtype, "--size", str(size), "--repeats", str(repeats)]
        status, text, _ = run([*argv, "--json"])
        if status:
            return {"failed_because": text[-6000:]}
        found[dtype] = json.loads(text.splitlines()[-1])
        for one in found[dtype]["kernels"].values():
            # The time at the copy's rate, without computation.
            one["floor_s"] = one["share_of_copy"] * one["median_s"]
    return found


def torch():
    """Time a training step and PyTorch's, on one GPU."""
    argv = python(HERE / "step_vs_torch.py", "--json")
    argv += ["--torch-python", str(ROOT / ".venv-gpu-torch" / "bin" / "python")]
    status, text, _ = run(argv)
    if status:
        return {"failed_because": text[-6000:]}
    return {"cases": json.loads(text.splitlines()[-1])}


def table(report):
    """Yield the report as lines of text."""
    about = report["facts"]
    if "failed" in about:
        yield f"no GPU: {about['failed']}"
        return
    yield f"{about['gpu']}, compute capability {about['capability']}"
    if "tests" in report:
        found = report["tests"]
        counts = (
            f"{found[k]} {k}" for k in ("passed", "failed", "skipped") if k in found
        )
        yield f"tests: {', '.join(counts)}, exit status {found['exit_status']}"
    for tool, found in report.get("sanitizers", {}).items():
        said = (
            found if isinstance(found, str) else f"exit status {found['exit_status']}"
        )
        yield f"compute-sanitizer {tool}: {said}"
    for dtype, found in report.get("kernels", {}).items():
        if dtype == "failed_because":
            yield f"kernels: {found}"
            continue
        yield f"{dtype}, a copy moves {found['copy_bytes_per_s'] / 1e9:.0f} GB/s"
        for name, one in found["kernels"].items():
            taken, floor = 1e6 * one["median_s"], 1e6 * one["floor_s"]
            mark = "  <-- slow" if one["share_of_copy"] < LOWEST_SHARE else ""
            yield (
                f"  {name:32} {taken:9.1f} us, floor {floor:9.1f} us: "
                f"{one['bytes_per_s'] / 1e9:7.0f} GB/s, "
                f"{100 * one['share_of_copy']:4.0f} % of a copy{mark}"
            )
    for case in report.get("torch", {}).get("cases", ()):
        yield (
            f"step {case['case']:40} {1e3 * case['ours_s']:8.3f} ms, PyTorch "
            f"{1e3 * case['torch_s']:8.3f} ms: {case['ratio']:.2f} times as fast"
        )


def failures(value):
    """Yield the reasons of all failures in the report."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("failed", "failed_because"):
                yield one
            else:
                yield from failures(one)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("tests", "sanitizers", "kernels", "torch")
    parser.add_argument("--report", type=Path, default=Path("gpu-acceptance.json"))
    parser.add_argument("--without", nargs="+", choices=parts, default=[])
    parser.add_argument(
        "--size", type=int, default=2**26, help="elements (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    # Test this checkout, not the installed package.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    sys.path.insert(0, str(ROOT))
    report = {"date": time.strftime("%Y-%m-%d"), "facts": facts()}
    steps = {
        "tests": tests,
        "sanitizers": sanitizers,
        "kernels": lambda: kernels(args.size, args.repeats),
        "torch": torch,
    }
    for name, step in steps.items():
        if name in args.without or "failed" in report["facts"]:
            continue
        print(f"=== {name}", file=sys.stderr, flush=True)
        report[name] = step()
        args.report.write_text(json.dumps(report, indent=1))
    args.report.write_text(json.dumps(report, indent=1))
    print(*table(report), sep="\n")
    wrong = list(failures(report))
    for text in wrong:
        print(f"FAILED: {str(text)[-2000:]}")
    print(f"report: {args.report}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
