"""The step of ``vs_peers.py`` in JAX: data parallel over processes, by gloo."""

import json
import os
import sys
import time
from functools import partial

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def main(rank, size, port, model, layers, n_rows, steps):
    # One core a process, which also sets the number of XLA's threads.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [cores[rank % len(cores)]])
    import jax
    import numpy as np

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", size, rank)
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("rows",))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    on_all = NamedSharding(mesh, PartitionSpec())
    rng = np.random.default_rng(rank)
    x, y = (
        jax.make_array_from_process_local_data(by_rows, part)
        for part in rows(rng, model, layers, n_rows)
    )
    params = jax.device_put(first_params(layers), on_all)
    zeros = jax.tree.map(np.zeros_like, params)
    state = (params, jax.device_put(zeros, on_all), jax.device_put(zeros, on_all))
    update = jax.jit(
        partial(step, model), donate_argnums=0, out_shardings=(on_all, on_all)
    )
    seconds = []
    for count in range(1, 2 + steps // 10 + steps):
        last = time.perf_counter()
        state, loss = update(state, float(count), x, y)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - last)
    slowest = jax.make_array_from_process_local_data(
        by_rows, np.array([seconds[-steps:]], np.float32)
    )
    slowest = jax.jit(lambda s: s.max(axis=0), out_shardings=on_all)(slowest)
    if rank == 0:
        found = float(np.median(np.asarray(slowest)))
        print(json.dumps({"median_step_s": found}), flush=True)
    jax.distributed.shutdown()


def rows(rng, model, layers, n_rows):
    """Return features and labels, float32 and int32."""
    import numpy as np

    x = rng.standard_normal((n_rows, layers[0])).astype(np.float32)
    return x, rng.integers(0, max(2, layers[-1]), n_rows).astype(np.int32)


def first_params(layers):
    """Return a list of weights and biases."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        (
            (rng.standard_normal((n_in, n_out)) / n_in**0.5).astype(np.float32),
            np.zeros(n_out, np.float32),
        )
        for n_in, n_out in zip(layers, layers[1:])
    ]


def mean_loss(model, params, x, y):
    import jax
    from jax import numpy as jnp

    for weights, bias in params[:-1]:
        x = jax.nn.relu(x @ weights + bias)
    weights, bias = params[-1]
    z = x @ weights + bias
    if model == "logistic":
        return jnp.mean(jnp.logaddexp(0.0, z[:, 0]) - y * z[:, 0])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def step(model, state, count, x, y):
    """Return the state after a step of Adam, and the loss."""
    import jax
    from jax import numpy as jnp

    params, m, v = state
    loss, grads = jax.value_and_grad(partial(mean_loss, model))(params, x, y)
    m = jax.tree.map(lambda a, g: BETA1 * a + (1 - BETA1) * g, m, grads)
    v = jax.tree.map(lambda a, g: BETA2 * a + (1 - BETA2) * g * g, v, grads)
    rate = 1e-3 * jnp.sqrt(1 - BETA2**count) / (1 - BETA1**count)
    params = jax.tree.map(
        lambda p, a, b: p - rate * a / (jnp.sqrt(b) + EPSILON), params, m, v
    )
    return (params, m, v), loss


if __name__ == "__main__":
    rank, size, port, model, layers, n_rows, steps = sys.argv[1:]
    widths = [int(n) for n in layers.split(",")]
    main(int(rank), int(size), port, model, widths, int(n_rows), int(steps))
