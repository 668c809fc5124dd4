"""``pympi-train`` on GPUs, as a person starts it: the digits, from start to end."""

import json
import re
import sys

import gpus
import mpi_launch
import numpy as np
import pytest
from safetensors.numpy import load_file

from pympi_train.comm.transports import cuda_aware

pytestmark = pytest.mark.gpu
DIGITS = mpi_launch.ROOT / "examples" / "digits.toml"
DATA = mpi_launch.ROOT / "examples" / "digits.npz"


def run(n_ranks, *argv, env=None, status=0):
    """Run ``pympi-train``; the object that it printed, else how it ended."""
    argv = [sys.executable, "-m", "pympi_train", *map(str, argv)]
    done = mpi_launch.mpirun(
        n_ranks, argv, env=gpus.environment(**(env or {})), timeout=300
    )
    assert done.returncode == status, done.stderr
    if status or "--json" not in argv:
        return done
    return json.loads(done.stdout.splitlines()[-1])


def run_digits(folder, n_ranks, *settings, env=None):
    """Train on the digits for two epochs; the result, and the weights."""
    settings = ["train.epochs=2", f"output.directory={folder}", *settings]
    result = run(n_ranks, "train", DIGITS, "--json", "--set", *settings, env=env)
    return result, load_file(folder / "weights.safetensors")


@pytest.fixture
def command(mpirun, tmp_path):
    """Return `run` with a folder for NCCL's stand-in."""
    if gpus.missing():
        pytest.skip(gpus.missing())

    def call(*args, env=None, **kwargs):
        return run(*args, env={"STANDIN_NCCL": str(tmp_path), **(env or {})}, **kwargs)

    return call


@pytest.fixture
def train(command, tmp_path):
    """Return ``train(n_ranks, *settings, env={})``: the result, and the weights."""

    def call(n_ranks, *settings, env=None):
        env = {"STANDIN_NCCL": str(tmp_path), **(env or {})}
        return run_digits(tmp_path / "run", n_ranks, *settings, env=env)

    return call


@pytest.fixture(scope="module")
def on_cpu(mpirun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpu") / "run"
    return run_digits(folder, 1, "train.backend=numpy")


def assert_same(found, want):
    """Assert that two trainings in float32 differ by rounding alone."""
    (result, weights), (want_result, want_weights) = found, want
    assert result["train_loss"] == pytest.approx(want_result["train_loss"], rel=1e-5)
    accuracy = want_result["validation"]["accuracy"]
    assert result["validation"]["accuracy"] == pytest.approx(accuracy, abs=0.006)
    for name, values in want_weights.items():
        np.testing.assert_allclose(weights[name], values, atol=2e-4)


def test_one_rank_gives_the_result_of_the_cpu(train, on_cpu):
    assert_same(train(1, "train.backend=cuda"), on_cpu)


@pytest.mark.parametrize(
    "transport, n_ranks",
    [
        ("nccl", 2),
        pytest.param("mpi", 2, marks=pytest.mark.grid),
        ("staged", 2),
        pytest.param("nccl", 4, marks=pytest.mark.grid),
    ],
)
def test_ranks_give_the_result_of_the_cpu(train, on_cpu, n_ranks, transport):
    if gpus.PRESENT and transport != "staged":
        pytest.skip("needs a GPU a rank, or an MPI that reads its memory")
    aware = {} if gpus.PRESENT else {cuda_aware.OVERRIDE: "1"}
    how = "train.backend=cuda", f"parallel.transport={transport}"
    found = train(n_ranks, *how, env=aware)
    assert_same(found, on_cpu)
    assert found[0]["exchange"]["transport"] == transport
    numerics = found[0]["numerics"]
    assert "compute capability" in numerics["gpu"] and "cuBLAS" in numerics["gpu"]
    assert on_cpu[0]["numerics"]["gpu"] is None


EACH_SEES_ONE = """
import os, sys
from pympi_train.cli import main
from pympi_train.comm.launcher import LOCAL_RANKS
(number,) = (os.environ[name] for name in LOCAL_RANKS if name in os.environ)
os.environ["CUDA_VISIBLE_DEVICES"] = str(2 + int(number))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(gpus.PRESENT, reason="needs four GPUs")
def test_launchers_may_show_each_rank_a_gpu_of_its_own(command, tmp_path):
    env = gpus.environment(STANDIN_NCCL=str(tmp_path), PYTHONWARNINGS="default")
    argv = [sys.executable, "-c", EACH_SEES_ONE, "train", str(DIGITS), "--json"]
    argv += ["--set", "train.epochs=1", "train.backend=cuda"]
    argv.append(f"output.directory={tmp_path / 'run'}")
    done = mpi_launch.mpirun(2, argv, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "share one" not in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["exchange"]["transport"] == "nccl"


def test_trained_on_one_and_evaluated_on_the_other(command, tmp_path):
    folder = tmp_path / "run"
    settings = ["train.epochs=1", f"output.directory={folder}", "train.backend=cuda"]
    command(2, "train", DIGITS, "--json", "--set", *settings)
    evaluate = ("evaluate", folder, "--data", DATA, "--json", "--backend")
    found = [command(n, *evaluate, name) for n, name in ((1, "numpy"), (2, "cuda"))]
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    written = []
    for name in ("numpy", "cuda"):
        preds = tmp_path / f"{name}.npy"
        command(
            2, "predict", folder, "--data", DATA, "--output", preds, "--backend", name
        )
        written.append(np.load(preds))
    np.testing.assert_array_equal(*written)


@pytest.mark.parametrize(
    "precision", ["float16", pytest.param("bfloat16", marks=pytest.mark.grid)]
)
def test_halves_learn_the_digits(train, precision):
    settings = ("train.backend=cuda", f"train.precision={precision}", "train.epochs=4")
    result, weights = train(2, *settings)
    assert result["validation"]["accuracy"] > 0.93
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}


def test_auto_takes_the_gpu_and_says_so(command, tmp_path):
    settings = ["train.epochs=1", f"output.directory={tmp_path / 'run'}"]
    done = command(2, "train", DIGITS, "--set", *settings)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ranks")]
    assert "backend cuda (" in line and "a kernel ran" in line
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("exchange")]
    assert line.startswith("exchange allreduce by ")
    resolved = (tmp_path / "run" / "config.toml").read_text()
    assert 'backend = "cuda"' in resolved and 'transport = "auto"' not in resolved


def complaint(done):
    """Return the one line of the program's own; Open MPI's mpirun adds some."""
    lines = done.stderr.splitlines()
    (line,) = [line for line in lines if line.startswith("pympi-train: ")]
    return line


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
@pytest.mark.parametrize(
    "devices, reason",
    [
        ("0", "the driver shows no GPU"),
        pytest.param("-1", "cudaErrorInsufficientDriver", marks=pytest.mark.grid),
    ],
)
def test_without_a_gpu(command, tmp_path, devices, reason):
    env = {"STANDIN_DEVICES": devices}
    settings = ["train.epochs=1", f"output.directory={tmp_path / 'run'}"]
    done = command(2, "train", DIGITS, "--set", *settings, env=env)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ranks")]
    assert "no GPU: rank 0: " in line and reason in line
    settings.append("train.backend=cuda")
    done = command(2, "train", DIGITS, "--set", *settings, env=env, status=2)
    line = complaint(done)
    assert line.startswith("pympi-train: backend is 'cuda', but rank 0: ")
    assert reason in line and "(2 of 2 ranks have none)" in line


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
def test_ranks_that_share_a_gpu_are_warned(command, tmp_path):
    env = {"STANDIN_DEVICES": "2", "PYTHONWARNINGS": "default"}
    settings = ["train.epochs=1", f"output.directory={tmp_path / 'run'}"]
    done = command(4, "train", DIGITS, "--set", *settings, env=env)
    # Which two do depends on how the launcher numbers the ranks of a node.
    warned = re.findall(r"2 GPUs for 4 ranks: ranks \d, \d share one", done.stderr)
    assert len(warned) == 1
    assert "2 ranks on one" in done.stdout
    settings += ["train.backend=cuda", "parallel.transport=nccl"]
    done = command(4, "train", DIGITS, "--set", *settings, env=env, status=2)
    assert "NCCL needs a GPU for each rank, and some share one" in done.stderr


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
@pytest.mark.parametrize(
    "n_bytes",  # too few for the model; for a batch
    [pytest.param(100_000, marks=pytest.mark.grid), 600_000],
)
def test_a_gpu_with_too_little_memory(command, tmp_path, n_bytes):
    env = {"STANDIN_BYTES": str(n_bytes)}
    settings = ["train.epochs=1", "train.batch_size=1438", "train.backend=cuda"]
    settings.append(f"output.directory={tmp_path / 'run'}")
    done = command(2, "train", DIGITS, "--set", *settings, env=env, status=2)
    line = complaint(done)
    assert "has no room for" in line and "A smaller micro_batch_size" in line


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
def test_without_nccl(command, tmp_path):
    env = {"STANDIN_NO_NCCL": "1"}
    settings = ["train.epochs=1", f"output.directory={tmp_path / 'run'}"]
    done = command(2, "train", DIGITS, "--set", *settings, env=env)
    why = "nccl: rank 0: NCCL is not installed (pip install nvidia-nccl-cu13, or -cu12)"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("exchange")]
    assert "allreduce by staged" in line and why in line
    settings.append("parallel.transport=nccl")
    done = command(2, "train", DIGITS, "--set", *settings, env=env, status=2)
    line = complaint(done)
    assert line == f"pympi-train: transport {why}"


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
def test_two_wheels_of_cupy_are_explained(command, tmp_path):
    site = tmp_path / "site"
    for name in ("cupy_cuda12x", "cupy_cuda13x"):
        info = site / f"{name}-14.2.0.dist-info"
        info.mkdir(parents=True)
        text = (
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 14.2.0\n"
        )
        (info / "METADATA").write_text(text)
    env = gpus.environment()
    env = {"PYTHONPATH": f"{site}:{env['PYTHONPATH']}"}
    settings = ["train.backend=cuda", f"output.directory={tmp_path / 'run'}"]
    done = command(1, "train", DIGITS, "--set", *settings, env=env, status=2)
    assert "cupy-cuda12x and cupy-cuda13x are both installed" in done.stderr
    assert "pip uninstall cupy-cuda12x cupy-cuda13x" in done.stderr
