"""Studies made up of planted causes, as `pympi-train scaling` would measure them."""

import numpy as np

from pympi_train.scaling.analysis.points import PARTS

ROWS = 1024  # of the global batch of a strong study
ROW_S, CALL_S = 1e-5, 2e-4  # seconds of computing a row; of the calls of a step
NOISE = 0.01


def make_study(
    ranks=(1, 2, 4, 8),
    modes=("strong",),
    repeats=3,
    per_node=4,
    slow=None,
    latency_s=0.0,
    link_s=0.0,
    update_s=1e-5,
    input_s=0.0,
    contention=0.0,
    call_s=0.0,
    oversubscribed=(),
    steps=20,
):
    """Return the content of a study.

    Parameters
    ----------
    slow : (int, float), optional
        A rank, and how many times as long it computes.
    latency_s, link_s : float
        Seconds of an exchange within a node; more of them between nodes.
    update_s, input_s : float
        Seconds of update and input of each rank, at any number of ranks.
    contention : float
        Part by which each further rank on a node slows computing down.
    call_s : float
        Seconds of computing of a step without a row.
    """
    rng, measured = np.random.default_rng(0), []
    for repeat in range(repeats):
        for mode in modes:
            for n in ranks:
                batch = ROWS * n if mode == "weak" else ROWS
                node_of = [rank // per_node for rank in range(n)]
                crowd = min(n, per_node) - 1
                work_s = batch / n * ROW_S * (1 + contention * crowd) + call_s
                compute_s = np.full(n, work_s)
                if slow is not None and slow[0] < n:
                    compute_s[slow[0]] *= slow[1]
                times = 1 + NOISE * rng.standard_normal((steps, n))
                each_s = compute_s * times
                wait_s = each_s.max(axis=1, keepdims=True) - each_s
                transfer_s = 0.0
                if n > 1:
                    transfer_s = latency_s + (link_s if n > per_node else 0.0)
                parts = {
                    "input": np.full(n, input_s),
                    "compute": each_s.mean(axis=0),
                    "pack": np.zeros(n),
                    "wait": wait_s.mean(axis=0),
                    "transfer": np.full(n, transfer_s),
                    "update": np.full(n, update_s),
                }
                step_s = each_s.max(axis=1) + transfer_s + update_s + input_s
                measured.append({
                    "mode": mode,
                    "strategy": "allreduce",
                    "ranks": n,
                    "repeat": repeat,
                    "nodes": len(set(node_of)),
                    "node_of": node_of,
                    "cores_per_rank": 1,
                    "oversubscribed": n in oversubscribed,
                    "batch_size": batch,
                    "parameters": 1000,
                    "gradient_bytes": 4000,
                    "sent_bytes": 8000.0 * (n > 1),
                    "steps": steps,
                    "step_s": step_s.tolist(),
                    "parts_s": {name: parts[name].tolist() for name in PARTS},
                    "compute_s": each_s.tolist(),
                    "input_bytes": None,
                    "joules": None,
                    "error": None,
                })
    return {
        "schema": "pympi-train/scaling/1",
        "created": "2026-11-30T00:00:00Z",
        "config": "planted.toml",
        "config_hash": "0",
        "machine": {"cpu": {"model": "planted"}},
        "mpi": "planted",
        "settings": {"steps": steps, "cores_per_rank": 1},
        "measurements": measured,
        "exchanges": [],
        "results": [],
    }
