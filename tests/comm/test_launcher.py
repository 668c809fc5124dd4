"""Launchers that do not belong to the loaded MPI library, or no library at all."""

import subprocess
import sys

import mpi_launch
import pytest

from pympi_train.comm import launcher
from pympi_train.errors import LaunchError

MPICH = "MPICH Version:      5.0.2"
OPEN_MPI = "Open MPI v5.0.11, package: Open MPI root@host"


def slurm(n, **more):
    """Of a batch script, or a shell in an allocation."""
    return {"SLURM_NTASKS": str(n), "SLURM_PROCID": "0", **more}


def srun(n, **more):
    return slurm(n, SLURM_STEP_NUM_TASKS=str(n), **more)


# environment, size of COMM_WORLD, library, words of the complaint (none: no complaint)
CASES = {
    "plain python": ({}, 1, MPICH, None),
    "own mpirun, MPICH": ({"PMI_SIZE": "4", "PMI_RANK": "1"}, 4, MPICH, None),
    "own mpirun, Open MPI": ({"OMPI_COMM_WORLD_SIZE": "4"}, 4, OPEN_MPI, None),
    "one rank on purpose": ({"PMI_SIZE": "1"}, 1, OPEN_MPI, None),
    "MPICH's mpirun": (
        {"PMI_SIZE": "2"},
        1,
        OPEN_MPI,
        ["PMI_SIZE=2", "belongs to MPICH's family", "the mpirun of Open MPI"],
    ),
    "Open MPI's mpirun": (
        {"OMPI_COMM_WORLD_SIZE": "3"},
        1,
        MPICH,
        ["OMPI_COMM_WORLD_SIZE=3", "belongs to Open MPI's family", "mpirun of MPICH"],
    ),
    "srun": (srun(4), 4, MPICH, None),
    "srun without PMI, MPICH": (srun(4), 1, MPICH, ["NUM_TASKS=4", "--mpi=pmi2"]),
    "srun without its PMI, Intel MPI": (
        srun(4, PMI_SIZE="4"),
        1,
        "Intel(R) MPI Library 2021.13 for Linux* OS",
        ["With Intel MPI use", "--mpi=pmi2", "with I_MPI_PMI_LIBRARY set to"],
    ),
    "srun, a library that is not known": (
        srun(4),
        1,
        "HPE MPT 2.25  09/19/21",
        ["With HPE MPT 2.25 09/19/21 use `srun --mpi=PLUGIN`"],
    ),
    "srun without PMIx, Open MPI": (srun(4), 1, OPEN_MPI, ["--mpi=pmix", "srun -n 1"]),
    "a process in an allocation": (slurm(4), 1, MPICH, None),
    "srun with another's PMI, Open MPI": (
        srun(4, PMI_SIZE="4"),
        1,
        OPEN_MPI,
        ["PMI_SIZE=4", "srun --mpi=pmix"],
    ),
    "srun -n 1": (slurm(4, SLURM_STEP_NUM_TASKS="1"), 1, MPICH, None),
    "mpirun -n 1 inside sbatch": (slurm(4, PMI_SIZE="1"), 1, MPICH, None),
    "Open MPI's mpirun -n 1 inside sbatch": (
        slurm(4, OMPI_COMM_WORLD_SIZE="1"),
        1,
        OPEN_MPI,
        None,
    ),
    "mpirun -n 4 inside sbatch": (slurm(4, PMI_SIZE="4"), 4, MPICH, None),
    "mpirun -n 2 of another inside sbatch": (
        slurm(4, OMPI_COMM_WORLD_SIZE="2"),
        1,
        MPICH,
        ["OMPI_COMM_WORLD_SIZE=2", "Open MPI's family"],
    ),
    "no number": ({"PMI_SIZE": "many", "SLURM_NTASKS": ""}, 1, MPICH, None),
}


@pytest.mark.parametrize("case", CASES)
def test_mismatch(case):
    environ, size, library, words = CASES[case]
    found = launcher.mismatch(environ, size, library)
    if words is None:
        assert found is None
    else:
        assert "\n" not in found
        for word in words:
            assert word in found


@pytest.mark.parametrize(
    "environ, rank",
    [
        ({}, 0),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, 1),
        ({**srun(4), "SLURM_PROCID": "3"}, 3),
        # A batch script's SLURM_PROCID is 0 on each rank of mpirun.
        (slurm(4, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1"), 1),
        ({"PMI_RANK": "1"}, 0),
        ({**srun(4), "SLURM_PROCID": "x"}, 0),
    ],
)
def test_launched_rank(environ, rank):
    assert launcher.launched_rank(environ) == rank


def test_a_lone_process_in_an_allocation_is_told_of_the_rest():
    assert "allocation of 4 tasks; `srun`" in launcher.remark(slurm(4), 1)
    for environ, size in (({}, 1), (slurm(1), 1), (slurm(4), 4), (srun(1), 1)):
        assert launcher.remark(environ, size) is None
    assert launcher.remark(slurm(4, PMI_SIZE="1"), 1) is None  # by mpirun -n 1


@pytest.mark.parametrize("error", [RuntimeError, ImportError])
def test_library_that_cannot_be_loaded(monkeypatch, error):
    class Refuses:
        def find_spec(self, name, path=None, target=None):
            if name == "mpi4py.MPI":
                raise error("cannot load MPI library\nlibmpi.so: not found")

    import mpi4py

    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.delattr(mpi4py, "MPI", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refuses(), *sys.meta_path])
    with pytest.raises(LaunchError) as info:
        launcher.load_mpi()
    text = str(info.value)
    assert "\n" not in text
    for word in ("cannot load MPI library", "pip install mpich", "module load"):
        assert word in text


def command(arguments, env, cwd):
    """Run the command line in one process, as some launcher's rank."""
    return subprocess.run(
        [sys.executable, "-m", "pympi_train", *arguments],
        cwd=cwd,
        env=mpi_launch.environment(env),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def other_launcher():
    """Variables (number of ranks, rank) of the launcher that is not this MPI's."""
    version = subprocess.run(
        [mpi_launch.find_mpirun(), "--version"],
        env=mpi_launch.environment(),
        capture_output=True,
        text=True,
    ).stdout
    if "Open MPI" in version:
        return "PMI_SIZE", "PMI_RANK"
    return "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("who", ["other mpirun", "srun"])
def test_command_refuses_to_train_n_times(who, rank, other_launcher, tmp_path):
    step = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    names = step if who == "srun" else other_launcher
    env = dict(zip(names, ("4", str(rank))))
    done = command(["train", "any.toml"], env, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    if rank == 0:
        (line,) = done.stderr.splitlines()
        assert line.startswith("pympi-train: the launcher started 4 ranks")
        assert f"{names[0]}=4" in line
    else:
        assert done.stderr == ""


NO_LIBRARY = {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}


@pytest.mark.parametrize("command_name", ["train", "evaluate", "predict", "bench"])
def test_command_without_library_says_what_to_do(command_name, tmp_path):
    arguments = {
        "train": ["any.toml"],
        "evaluate": ["run", "--data", "x.npz"],
        "predict": ["run", "--data", "x.npz", "--output", "y.npy"],
        "bench": ["optimizer"],
    }[command_name]
    done = command([command_name, *arguments], NO_LIBRARY, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no MPI library could be loaded" in line
    assert "pip install mpich" in line
    assert "module load" in line


def test_only_the_first_rank_says_that_there_is_no_library(tmp_path):
    env = {**NO_LIBRARY, "PMI_SIZE": "2", "PMI_RANK": "1"}
    done = command(["train", "any.toml"], env, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_traceback_of_a_missing_library_on_request(tmp_path):
    done = command(["train", "any.toml", "--traceback"], NO_LIBRARY, tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("pympi-train: no MPI library")


def test_ranks_that_outnumber_the_cpus_are_told_to_yield():
    name = "MPIR_CVAR_ENABLE_HEAVY_YIELD"
    assert launcher.yielding({"MPI_LOCALNRANKS": "3"}, 2) == {name: "1"}
    assert launcher.yielding({"MPI_LOCALNRANKS": "2"}, 2) == {}
    assert launcher.yielding({}, 1) == {}
    assert launcher.yielding({"MPI_LOCALNRANKS": "3", name: "0"}, 2) == {}


def test_the_number_on_the_node_is_the_launchers():
    assert launcher.told_local_rank({}, 4) is None
    hydra = {"MPI_LOCALRANKID": "3", "SLURM_LOCALID": "0"}
    assert launcher.told_local_rank(hydra, 4) == 3
    assert launcher.told_local_rank({"OMPI_COMM_WORLD_LOCAL_RANK": "0"}, 4) == 0
    # srun's, but not what a batch script hands on to a launcher that tells nothing.
    srun = {"SLURM_LOCALID": "2", "SLURM_STEP_NUM_TASKS": "4"}
    assert launcher.told_local_rank(srun, 4) == 2
    assert launcher.told_local_rank(srun, 8) is None
    assert launcher.told_local_rank({"SLURM_LOCALID": "0"}, 4) is None
