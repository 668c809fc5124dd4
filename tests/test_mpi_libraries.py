"""MPI libraries by their version strings, and plugins by the words of `srun`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.mpi_libraries import (
    LIBRARIES,
    fitting_plugin,
    identify_library,
    library_title,
    listed_plugins,
)

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI root@cray-intel Distribution, ident: 5"
CRAY = "MPI VERSION    : CRAY MPICH version 8.1.28.15 (ANL base 3.4a2)\nMPI BUILD INFO"
MPICH = "MPICH Version:      5.0.2\nMPICH CC: /opt/intel/icx Open MPI"
DEBIAN = """\
MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v4
"""
OLD = "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: pmix_v5\n"


@pytest.mark.parametrize(
    "version, name, family",
    [
        (OPEN_MPI, "Open MPI", "Open MPI"),
        (CRAY, "Cray MPICH", "MPICH"),
        (MPICH, "MPICH", "MPICH"),
        ("Intel(R) MPI Library 2021.13 for Linux* OS", "Intel MPI", "MPICH"),
        ("MVAPICH2 Version      :\t2.3.7\nMVAPICH2 Release", "MVAPICH", "MPICH"),
        ("IBM Spectrum MPI v10.4.0.3", "IBM Spectrum MPI", "Open MPI"),
    ],
)
def test_library(version, name, family):
    found = identify_library(version)
    assert (found.name, found.family) == (name, family)


@pytest.mark.parametrize("version", ["", "\n", "HPE MPT 2.25", "Other, like MPICH"])
def test_no_known_library(version):
    assert identify_library(version) is None


def test_titles():
    assert library_title(OPEN_MPI) == "Open MPI v5.0.11"
    assert library_title(MPICH) == "MPICH 5.0.2"
    assert library_title("Some MPI 1.0\0") == "Some MPI 1.0"  # ends as in C
    assert library_title("") == ""


@pytest.mark.parametrize(
    "text, names",
    [
        (DEBIAN, ["pmix", "none", "cray_shasta", "pmi2", "pmix_v4"]),
        (OLD, ["none", "pmi2", "pmix_v5", "pmix"]),
        ("MPI types are... pmi2 none", ["pmi2", "none"]),
        ("none, pmi2", ["none", "pmi2"]),
        ("srun: error: no configuration\nsrun: fatal: it is absent", []),
        ("", []),
    ],
)
def test_plugins_that_srun_lists(text, names):
    assert listed_plugins(text) == names


@pytest.mark.parametrize(
    "version, listed, plugin",
    [
        (MPICH, DEBIAN, "pmi2"),
        (OPEN_MPI, DEBIAN, "pmix"),
        (OPEN_MPI, OLD, "pmix"),
        (CRAY, DEBIAN, "cray_shasta"),
        (CRAY, OLD, "pmi2"),
        (MPICH, "none\npmix", None),
        (OPEN_MPI, "none\npmi2", None),
        (OPEN_MPI, "", None),
    ],
)
def test_plugin_of_a_library(version, listed, plugin):
    assert fitting_plugin(identify_library(version), listed) == plugin


@given(st.sampled_from(sorted(LIBRARIES)), st.text(max_size=40), st.text(max_size=200))
def test_any_listing_gives_a_plugin_of_the_library_or_none(name, version, listed):
    library = identify_library(f"{name} {version}") or LIBRARIES[name]
    assert fitting_plugin(library, listed) in (*library.plugins, None)
