"""Description of this machine, as recorded beside measurements."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from pympi_train.backends.nvidia import describe_gpus
from pympi_train.backends.threads import affinity

LIBRARIES = ("numpy", "numba", "llvmlite", "mpi4py", "pyarrow", "h5py", "zarr")
DISTRIBUTIONS = ("pympi-train", "cupy-cuda12x", "cupy-cuda13x")
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "CUDA_VISIBLE_DEVICES")
CPUS = "sys/devices/system/cpu"
UNLIMITED = 2**60  # bytes: cgroups of version 1 show no limit as a number above


def describe_machine(mpi=None, hostname=False, root="/"):
    """Describe hardware and software that determine how fast this process runs.

    Parameters
    ----------
    mpi : str, optional
        Version string of the MPI library, as ``MPI.Get_library_version()`` returns it.
        Its first line is kept.
    hostname : bool
        Whether to add the host's name. Nothing else identifies the host.
    root : path
        Where ``/proc`` and ``/sys`` lie; for tests.

    Returns
    -------
    dict
        Plain values, ready for JSON; None where the system does not tell.

        - ``cpu``: ``model``; ``sockets``, ``cores`` and ``threads`` that are online;
          ``smt``, whether cores run several threads; ``governor`` of the frequency;
          ``virtual``, whether a hypervisor is reported.
        - ``affinity``: ``cores`` and ``threads`` that this process may run on.
        - ``memory_bytes`` of the node, and its number of ``numa_nodes``.
        - ``cgroup``: the limits ``cpus`` and ``memory_bytes`` of this process.
        - ``gpus``: a list of ``name`` and ``memory_bytes``; and ``gpu_driver``.
        - ``mpi``; ``blas``: a list of library, version and kernels of each loaded BLAS;
          ``versions`` of Python and of the installed libraries.
        - ``os``: ``system``, ``kernel``, ``distribution`` and ``architecture``.
        - ``environment``: variables that change speed, if they are set.

    Notes
    -----
    Not collective, and without MPI calls: one rank of each node calls it.
    """
    root = Path(root)
    own = affinity()
    gpus, driver = describe_gpus(root)
    found = {
        "cpu": _cpu(root),
        "affinity": {"cores": _cores(root, own), "threads": len(own)},
        "memory_bytes": _memory_bytes(root),
        "numa_nodes": len(list(root.glob("sys/devices/system/node/node[0-9]*")))
        or None,
        "cgroup": _cgroup(root),
        "gpus": gpus,
        "gpu_driver": driver,
        "mpi": _first_line(mpi) if mpi else None,
        "blas": _blas(),
        "versions": _versions(),
        "os": _os(root),
        "environment": _environment(),
    }
    return {"hostname": platform.node(), **found} if hostname else found


def _read(path):
    """Return the text of a file without its line end, or None."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _first_line(text):
    lines = text.strip("\0 \n").splitlines()
    return " ".join(lines[0].split()) if lines else None


def _cpu(root):
    info = _read(root / "proc/cpuinfo") or ""
    fields: dict[str, str] = {}
    for line in info.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    online = [
        int(path.parent.name.removeprefix("cpu"))
        for path in (root / CPUS).glob("cpu[0-9]*/topology")
    ]
    sockets = {_read(_topology(root, cpu) / "physical_package_id") for cpu in online}
    cores = _cores(root, online)
    return {
        "model": fields.get("model name") or platform.processor() or None,
        "sockets": len(sockets - {None}) or None,
        "cores": cores,
        "threads": len(online) or os.cpu_count(),
        "smt": len(online) > cores if cores else None,
        "governor": _read(root / CPUS / "cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in fields["flags"].split()
        if "flags" in fields
        else None,
    }


def _topology(root, cpu):
    return root / CPUS / f"cpu{cpu}/topology"


def _cores(root, cpus):
    """Return the number of cores to which some CPUs belong, or None."""
    siblings = {
        _read(_topology(root, cpu) / "core_cpus_list")  # since Linux 5.3
        or _read(_topology(root, cpu) / "thread_siblings_list")
        for cpu in cpus
    }
    return None if None in siblings else len(siblings) or None


def _memory_bytes(root):
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(root):
    """Return the tightest limits among the process's cgroups and those above them."""
    cpus, memory = [], []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if controllers:  # version 1: a tree for each controller
            top /= controllers
        inside = Path(os.path.normpath("/" + path.lstrip("/"))).relative_to("/")
        for folder in (top / inside, *(top / p for p in inside.parents)):
            cpus.append(_quota(_read(folder / "cpu.max")))
            quota = _read(folder / "cpu.cfs_quota_us")
            cpus.append(_quota(f"{quota} {_read(folder / 'cpu.cfs_period_us')}"))
            for name in ("memory.max", "memory.limit_in_bytes"):
                memory.append(_read(folder / name))
    limits = [int(m) for m in memory if m and m.isdigit() and int(m) < UNLIMITED]
    return {
        "cpus": min((c for c in cpus if c), default=None),
        "memory_bytes": min(limits, default=None),
    }


def _quota(text):
    """Return the CPUs that ``quota period`` allows, or None without a limit."""
    quota, _, period = (text or "").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return None


def _blas():
    import numpy  # noqa: F401 (loads its BLAS)
    from threadpoolctl import threadpool_info

    found = []
    for library in threadpool_info():
        if library["user_api"] == "blas":
            words = [library["internal_api"], library["version"]]
            words.append(library.get("architecture"))
            found.append(" ".join(str(word) for word in words if word))
    return sorted(set(found))


def _versions():
    """Return the versions of Python and of what is installed, without imports."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *DISTRIBUTIONS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def _environment():
    found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    devices = found.get("CUDA_VISIBLE_DEVICES", "")
    if "-" in devices:  # UUIDs, which identify the host
        found["CUDA_VISIBLE_DEVICES"] = f"{devices.count(',') + 1} by UUID"
    return found


def _os(root):
    release = {}
    for line in (_read(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        release[key] = value.strip('"')
    return {
        "system": sys.platform,
        "kernel": platform.release(),
        "distribution": release.get("PRETTY_NAME"),
        "architecture": platform.machine(),
    }
