"""Keys of [parallel] for every strategy, by a name that tests are told apart by."""

COMPRESSIONS = ("fp16", "bf16", "int8", "topk", "powersgd")
LOCAL = {"strategy": "local", "local_steps": 2}

# Whose ranks take the steps of one process, to rounding.
PLAIN = {
    "allreduce": {"strategy": "allreduce", "overlap": "off"},
    "overlap": {"strategy": "allreduce", "overlap": "on", "bucket_bytes": 1024},
    "hierarchical": {"strategy": "hierarchical"},
    "sharded-1": {"strategy": "sharded", "stage": 1},
    "sharded-2": {"strategy": "sharded", "stage": 2},
    "sharded-3": {"strategy": "sharded", "stage": 3},
    "server": {"strategy": "server"},
    "exact": {"reduction": "exact"},
}
LOSSY = {
    "local": LOCAL,
    "server-int8": {"strategy": "server", "compression": "int8"},
    **{f"allreduce-{kind}": {"compression": kind} for kind in COMPRESSIONS},
    **{f"local-{kind}": {**LOCAL, "compression": kind} for kind in COMPRESSIONS},
}
STRATEGIES = {**PLAIN, **LOSSY}
