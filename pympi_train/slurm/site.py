"""Defaults of a site: ``~/.config/pympi-train/site.toml``."""

import os
import re
import tomllib
from pathlib import Path

from pympi_train.errors import ConfigError, DataError
from pympi_train.slurm.request import FIELDS
from pympi_train.slurm.tools import run_tool

KEYS = (*(name for name in FIELDS if name != "array"), "mpi", "cpus_per_node")
SINFO = "%P|%a|%l|%D|%c|%G"
OPENING = """\
# Defaults of `pympi-train slurm`, whose options take precedence. Written by
# `pympi-train slurm --init` from the answer of sinfo. Other keys, with examples:
#     account = "physics"         modules = ["gcc/13.2", "openmpi/5.0"]
#     time = "01:00:00"           signal_before = 120
#     nodes = 1                   ntasks_per_node = 8
#     gpus_per_node = 4           cpus_per_task = 4
#     container = "/images/train.sif"     mpi = "pmix"
"""


def site_path():
    """Return the path of the file, whether it is there or not."""
    return Path(os.path.expanduser("~/.config/pympi-train/site.toml"))


def read_site():
    """Return the defaults; an empty dict if there is no file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or has a key that is not known. Values are checked
        where they are used.
    """
    path = site_path()
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in found:
        if name not in KEYS:
            raise ConfigError(f"{path}: unknown key {name!r}; known: {', '.join(KEYS)}")
    n_cpus = found.get("cpus_per_node", 1)
    if isinstance(n_cpus, bool) or not isinstance(n_cpus, int) or n_cpus < 1:
        raise ConfigError(f"{path}: cpus_per_node: expected a number, got {n_cpus!r}")
    modules = found.get("modules", [])
    if not isinstance(modules, list):
        raise ConfigError(f"{path}: modules: expected a list of names")
    return {**found, "modules": tuple(modules)}


def ask_site():
    """Return the text of a site file, from the answer of `sinfo`.

    Raises
    ------
    LaunchError
        If `sinfo` fails.
    DataError
        If there is no partition.
    """
    import tomli_w

    rows = partitions_of(run_tool("sinfo", "-h", "-o", SINFO).stdout)
    if not rows:
        raise DataError("sinfo names no partition")
    default = next((row for row in rows if row["is_default"]), rows[0])
    values = {"partition": default["partition"], "cpus_per_node": default["cpus"]}
    lines = [OPENING, "# Partitions of this site:"]
    for row in rows:
        gpus = f", {row['gpus']} GPUs" if row["gpus"] else ""
        lines.append(
            f"#     {row['partition']}: {row['nodes']} nodes of {row['cpus']} CPUs"
            f"{gpus}, at most {row['limit']}"
        )
    return "\n".join(lines) + "\n\n" + tomli_w.dumps(values)


def write_site():
    """Ask `sinfo`, and write the site file; return its path.

    Raises
    ------
    ConfigError
        If the file is there already.
    DataError
        If it cannot be written, or `sinfo` names no partition.
    LaunchError
        If `sinfo` fails.
    """
    path = site_path()
    if path.exists():
        raise ConfigError(f"{path} is there already: edit it, or remove it first")
    text = ask_site()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    return path


def partitions_of(text):
    """Return a dict for each partition in the output of `sinfo` in the format SINFO.

    Examples
    --------
    >>> partitions_of("gpu*|up|1-00:00:00|8|64+|gpu:a100:4(S:0-1)")
    [{'partition': 'gpu', 'is_default': True, 'limit': '1-00:00:00', 'nodes': 8,
      'cpus': 64, 'gpus': 4}]
    """
    found = {}
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) != 6 or cells[1] != "up":
            continue
        name, _, limit, nodes, cpus, gres = cells
        row = {"partition": name.rstrip("*"), "is_default": name.endswith("*")}
        row |= {"limit": limit, "nodes": int(nodes), "cpus": _leading_int(cpus)}
        row["gpus"] = sum(
            int(n) for n in re.findall(r"gpu(?::[^:,(]+)?:(\d+)", gres)
        )
        before = found.setdefault(row["partition"], row)
        if before is not row:  # nodes of another kind: what all of them have
            before["nodes"] += row["nodes"]
            before["cpus"] = min(before["cpus"], row["cpus"])
            before["gpus"] = min(before["gpus"], row["gpus"])
    return list(found.values())


def _leading_int(text):
    """Return 64 of "64+", which is the least of several."""
    return int(re.match(r"\d+", text)[0])
