"""All benchmarks in one launch, as one result."""

import hashlib
import json
import statistics
from contextlib import ExitStack
from datetime import datetime, timezone

import numpy as np

from pympi_train.backends.energy import EnergyMeter
from pympi_train.backends.machine import describe_machine
from pympi_train.bench.suite import cases
from pympi_train.bench.suite.result_file import SCHEMA
from pympi_train.bench.suite.timing import time_benchmarks
from pympi_train.comm.collectives import reduced
from pympi_train.comm.devices import choose_backend
from pympi_train.comm.mesh import Nodes, set_threads, share_of_node

GROUPS = ("start-up", "kernels", "exchange", "step", "input", "checkpoint")


def measure_all(comm, folder, *, quick=False, backend="auto", starts=None, only=GROUPS):
    """Time everything that a training does on this machine, each part by itself.

    Parameters
    ----------
    comm : MPI.Comm
    folder : path
        On the file system to measure, which all ranks share. Files are removed.
    quick : bool
        Small sizes and few samples, in seconds: to try the command, not to compare.
    backend : {"auto", "numpy", "numba", "cuda"}
    starts : dict of str to float, optional
        Seconds of this rank's start-up by part, which were measured before.
    only : sequence of str
        Of `GROUPS`.

    Returns
    -------
    dict
        On rank 0, as suite/schema.json describes; on other ranks, without the
        machine and the meter.

    Raises
    ------
    DataError
        On every rank, if ``folder`` cannot be written.

    Notes
    -----
    Collective.
    """
    sizes = cases.QUICK if quick else cases.FULL
    threads = set_threads(comm)
    chosen = choose_backend(comm, backend)
    nodes = Nodes(comm)
    meter = EnergyMeter() if nodes.node.rank == 0 else None
    nodes.free()
    skipped: list[dict] = []
    with ExitStack() as stack:
        every = _benchmarks(stack, comm, chosen, folder, sizes, only, skipped)
        timings = time_benchmarks(
            comm,
            every,
            rounds=sizes.rounds,
            round_s=sizes.round_s,
            meter=meter,
            wait=_wait(chosen.ops),
        )
    found = [*_starts(comm, starts or {}, only), *map_entries(comm, every, timings)]
    _, masks = share_of_node(comm)
    n_cpus = len(set().union(*masks))
    result = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "quick": quick,
        "ranks": comm.size,
        "nodes": nodes.n_nodes,
        "threads": threads,
        "oversubscribed": bool(
            reduced(comm, [len(masks) * threads > n_cpus], op="MAX")[0]
        ),
        "backend": chosen.name,
        **_machine(comm, meter),
        "benchmarks": found,
        "skipped": skipped,
    }
    return result


def _benchmarks(stack, comm, chosen, folder, sizes, only, skipped):
    """Return the benchmarks of the groups; say in ``skipped`` what is left out."""
    found = []
    if "kernels" in only:
        found += cases.kernel_cases(chosen.ops, chosen.name, sizes)
    if "exchange" in only and comm.size == 1:
        skipped.append({"group": "exchange", "reason": "one rank exchanges nothing"})
    elif "exchange" in only:
        found += cases.exchange_cases(comm, chosen.ops, sizes)
    if "step" in only:
        found += cases.step_cases(stack, comm, chosen.name, sizes)
    if "input" in only:
        found += cases.input_cases(stack, comm, folder, sizes)
        if not any(one.name == "input/parquet" for one in found):
            reason = "pyarrow is not installed: pip install 'pympi-train[data]'"
            skipped.append({"group": "input/parquet", "reason": reason})
    if "checkpoint" in only:
        found += cases.checkpoint_cases(stack, comm, folder, sizes)
    return found


def _wait(ops):
    if not ops.ON_DEVICE:
        return None
    from pympi_train.backends.cuda.device import wait_for_device

    return wait_for_device


def _machine(comm, meter):
    """Describe the machine of rank 0, and say whether the other nodes equal it."""
    from mpi4py import MPI

    here = describe_machine(mpi=MPI.Get_library_version())
    digest = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).digest()
    number = float(int.from_bytes(digest[:6], "little"))  # exact in float64
    least, most = (reduced(comm, [number], op=op)[0] for op in ("MIN", "MAX"))
    return {
        "machine": here,
        "uniform": bool(least == most),
        "energy": {
            "sources": list(meter.sources) if meter else [],
            "absent": dict(meter.absent) if meter else {},
        },
    }


def _starts(comm, starts, only):
    """Return the entries of the start-up: one sample of a launch. Collective."""
    if "start-up" not in only or not starts:
        return []
    slowest = reduced(comm, list(starts.values()), op="MAX").tolist()
    return [
        _entry(f"start-up/{name}", {"ranks": comm.size}, [[seconds]])
        for name, seconds in zip(starts, slowest)
    ]


def _entry(name, settings, rounds):
    samples = [seconds for one in rounds for seconds in one]
    return {
        "name": name,
        "settings": settings,
        "seconds": rounds,
        "median_s": statistics.median(samples),
        "min_s": min(samples),
        "joules": None,
    }


def map_entries(comm, benchmarks, timings):
    """Return what the result says of each benchmark.

    Parameters
    ----------
    comm : MPI.Comm
        Only its size is used.
    benchmarks : list of Benchmark
    timings : dict of str to Timings

    Returns
    -------
    list of dict
    """
    by_name, found = {one.name: one for one in benchmarks}, []
    for one in benchmarks:
        times = timings[one.name]
        entry = _entry(one.name, one.settings, times.rounds)
        if one.n_bytes is not None:
            entry["bytes"] = one.n_bytes
            entry["bytes_per_s"] = one.n_bytes / entry["median_s"]
        if one.n_flops is not None:
            entry["flops"] = one.n_flops
            entry["flops_per_s"] = one.n_flops / entry["median_s"]
        if one.beside in by_name:
            limit = by_name[one.beside]
            entry["beside"] = one.beside
            entry["share"] = share(one, times, limit, timings[one.beside])
        if None not in times.joules:
            entry["joules"] = statistics.mean(times.joules)
        if one.n_rows is not None:
            rows = one.n_rows * comm.size
            entry["rows_per_s"] = rows / entry["median_s"]
            known = entry["joules"] is not None
            entry["joules_per_row"] = entry["joules"] / rows if known else None
        found.append(entry)
    return found


def share(one, times, limit, limit_times):
    """Return how near a benchmark comes to its limit.

    Returns
    -------
    float
        Median over the rounds of the ratio of both rates, so that a round on a slowed
        machine slows both sides.
    """
    if one.n_flops is not None and limit.n_flops is not None:
        work = one.n_flops / limit.n_flops
    else:
        work = one.n_bytes / limit.n_bytes
    ratios = [
        work * np.median(theirs) / np.median(own)
        for own, theirs in zip(times.rounds, limit_times.rounds)
    ]
    return float(np.median(ratios))
