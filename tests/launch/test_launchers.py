"""Which program starts the ranks."""

import os
import sys

import pytest

from pympi_train.errors import LaunchError
from pympi_train.launch import launchers
from pympi_train.launch.launchers import (
    Launcher,
    candidates,
    find_launcher,
    launcher_family,
    loaded_library,
)


def program(folder, name, says):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Set the MPI library that mpi4py is said to load."""

    def loaded(version):
        path = str(tmp_path / "mpi" / "lib" / "libmpi.so")
        monkeypatch.setattr(launchers, "loaded_library", lambda: (version, path))
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "none"))

    return loaded


def test_families():
    assert launcher_family("mpirun (Open MPI) 5.0.11") == "Open MPI"
    assert launcher_family("HYDRA build details:") == "MPICH"
    assert launcher_family("mpirun: command not found") is None


def test_this_environment():
    version, path = loaded_library()
    assert os.path.exists(path)
    found = find_launcher(None, {"PATH": os.environ["PATH"]})
    assert found.about == version
    assert os.path.isabs(found.words[0])


def test_beside_the_library_comes_before_path(library, tmp_path):
    library("MPICH 4.2")
    program(tmp_path / "path", "mpirun", "HYDRA")
    other = program(tmp_path / "mpi" / "bin", "mpirun", "HYDRA")
    environ = {"PATH": str(tmp_path / "path")}
    assert find_launcher(None, environ).words == (other,)
    assert len(candidates("", environ)) == 1


def test_launcher_of_another_library_is_passed_over(library, tmp_path):
    library("Open MPI v5.0.11")
    environ = {"PATH": str(tmp_path / "path")}
    program(tmp_path / "path", "mpirun", "HYDRA")
    with pytest.raises(LaunchError, match="mpirun belongs to another.*--launcher"):
        find_launcher(None, environ)
    right = program(tmp_path / "path", "mpirun.openmpi", "mpirun (Open MPI) 4.1.4")
    assert find_launcher(None, environ) == Launcher((right,), "Open MPI v5.0.11")


def test_srun_in_a_slurm_job(library, tmp_path):
    library("MPICH 4.2")
    srun = program(tmp_path / "path", "srun", "MPI types are... pmi2 none")
    mpirun = program(tmp_path / "path", "mpirun", "HYDRA")
    environ = {"PATH": str(tmp_path / "path")}
    in_job, in_step = {"SLURM_JOB_ID": "7"}, {"SLURM_STEP_ID": "0"}
    assert find_launcher(None, environ).words == (mpirun,)
    words = (srun, "--mpi=pmi2", "--kill-on-bad-exit=1")
    assert find_launcher(None, environ | in_job).words == words
    found = find_launcher(None, environ | in_job | in_step)
    assert found.words == (*words, "--overlap")
    library("Open MPI v5.0.11")  # which this srun cannot start
    program(tmp_path / "path", "mpirun", "mpirun (Open MPI) 5.0.11")
    assert find_launcher(None, environ | in_job).words == (mpirun,)
    program(tmp_path / "path", "srun", "pmix, pmi2")
    assert find_launcher(None, environ | in_job).words[1] == "--mpi=pmix"
    # It names a plugin that it cannot load.
    said = "... pmix, pmi2\nsrun: error: Invalid MPI type pmix"
    program(tmp_path / "path", "srun", said)
    assert find_launcher(None, environ | in_job).words == (mpirun,)


def test_library_that_is_not_known(library):
    library("HPE MPT 2.25")
    with pytest.raises(LaunchError, match="unknown MPI library 'HPE MPT 2.25': name"):
        find_launcher(None, {"PATH": ""})


def test_no_library(monkeypatch):
    monkeypatch.setenv("MPI4PY_LIBMPI", "/nonexistent/libmpi.so")
    with pytest.raises(LaunchError, match="no MPI library could be loaded .*nonexist"):
        find_launcher(None, {})


@pytest.mark.parametrize("text", ["", "'", "no-such-mpirun -n 3"])
def test_launcher_that_is_none(text):
    with pytest.raises(LaunchError, match="--launcher"):
        find_launcher(text, {})


def test_given_launcher_keeps_its_options():
    found = find_launcher("sh --host 'a b:4'", {})
    command = found.command(3, ["train"])
    assert command == ["sh", "--host", "a b:4", "-n", "3", "train"]
    assert str(found) == "sh --host 'a b:4' (as given)"
