"""Work of a pool, and of checkpoints."""

import numpy as np
from design_cases.mock import NODE, Mock, N, case, layout


@case("start", "pool: nodes, GPUs and memory", "pool/machine.py")
def machine(size):
    from pympi_train.pool.machine import machine_of

    return lambda: machine_of(Mock(size))


@case("change", "pool: order with its ranks, as text", "pool/mail.py")
def order(size):
    from pympi_train.pool.mail import spans

    return lambda: spans(list(range(size)))


@case("change", "pool: plan of one job (rank 0)", "pool/schedule.py")
def plan_job(size):
    from pympi_train.pool.room import Machine, Needs
    from pympi_train.pool.schedule import plan

    of_rank = [rank // NODE for rank in range(size)]
    pool = Machine(of_rank, [None] * size, [1e12] * (of_rank[-1] + 1))
    return lambda: plan(pool, set(range(size)), {"a": Needs(1, size)}, {})


@case("change", "pool: plan of 8 jobs (rank 0)", "pool/schedule.py")
def plan_jobs(size):
    from pympi_train.pool.room import Machine, Needs
    from pympi_train.pool.schedule import plan

    of_rank = [rank // NODE for rank in range(size)]
    pool = Machine(of_rank, [None] * size, [1e12] * (of_rank[-1] + 1))
    ready = {f"job {i}": Needs(1, size, number=i, memory=1e9 * i) for i in range(8)}
    return lambda: plan(pool, set(range(size)), ready, {})


@case("checkpoint", "who writes what", "checkpoint/shares.py")
def shares(size):
    from pympi_train.backends.numpy import ops
    from pympi_train.checkpoint.shares import own_share
    from pympi_train.flat.state import State, held

    state, whole = State(copies=False), layout()
    for name in ("params", "optimizer/m", "optimizer/v"):
        block = np.zeros(whole.size, whole.dtype)
        state.add(held(name, whole, block, ops))
    return lambda: own_share(Mock(size), state)


@case("checkpoint", "manifest of a sharded state (rank 0)", "checkpoint/manifest.py")
def written(size):
    from pympi_train.checkpoint import manifest

    content = manifest_of(size)
    return lambda: manifest.file_bytes(content)


@case("resume", "manifest of a sharded state read", "checkpoint/manifest.py")
def read(size):
    from pympi_train.checkpoint import manifest

    data = manifest.file_bytes(manifest_of(size))
    return lambda: manifest.content_of(data, "manifest.json")


def manifest_of(size):
    """Return a manifest in which each rank has a file with its slice of 3 tensors."""
    from pympi_train.checkpoint import manifest

    names = [f"rank-{rank:05}.safetensors" for rank in range(size)]
    about = {"n_bytes": N, "blake2b": "0" * 64}
    regions = [
        {"file": name, "box": [[i, i + 1], [0, 1024]], "key": f"w[{i}:{i + 1},0:1024]"}
        for i, name in enumerate(names)
    ]
    tensor = {"dtype": "float32", "shape": [size, 1024], "regions": regions}
    content = {name: {} for name in manifest.KEYS}
    blocks = "params", "optimizer/m", "optimizer/v"
    tensors = {f"{block}/w": tensor for block in blocks}
    files = {name: about for name in names}
    return content | {"format": manifest.FORMAT, "tensors": tensors, "files": files}
