"""Train a torch module with MPI, without torch's own MPI backend.

    mpirun -n 2 python examples/torch_mpi.py

The module, its gradients and the optimizer are torch's; ``pt.Exchange`` adds up the
gradients of the ranks. Three rules give the result of one process:

* Every rank starts from the same parameters: here, from the same seed.
* The loss is the *sum* over the rows of this rank's share of the batch, so that shares
  may have any size, including zero.
* The sum over all ranks is divided by the number of rows of the whole batch.

``python examples/torch_mpi.py int8`` sends a quarter of the bytes.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import pympi_train as pt

BATCH, EPOCHS, TRAINING = 64, 12, 1400


def digits():
    """Return images, shape (1797, 64), and labels as tensors."""
    with np.load(Path(__file__).parent / "digits.npz") as file:
        x, y = file["X"].astype(np.float32) / 16, file["y"].astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)


def train(comm=None, compression="none"):
    """Return the accuracy on held-out digits, and the module. Collective."""
    torch.manual_seed(0)  # the same on every rank
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    x, y = digits()
    order = np.random.default_rng(0)
    with pt.Exchange(comm, compression=compression) as exchange:
        for _ in range(EPOCHS):
            rows = order.permutation(TRAINING)  # the same on every rank
            for start in range(0, TRAINING, BATCH):
                batch = rows[start : start + BATCH]
                own = batch[exchange.rank :: exchange.size]
                optimizer.zero_grad(set_to_none=False)
                loss = torch.nn.functional.cross_entropy(
                    module(x[own]), y[own], reduction="sum"
                )
                loss.backward()
                grads = [p.grad for p in module.parameters()]
                exchange.sum_all(grads)
                for grad in grads:
                    grad /= len(batch)
                optimizer.step()
    with torch.no_grad():
        right = module(x[TRAINING:]).argmax(dim=1) == y[TRAINING:]
    return right.double().mean().item(), module


if __name__ == "__main__":
    torch.set_num_threads(1)
    accuracy, _ = train(compression=(sys.argv[1:] or ["none"])[0])
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        print(f"{MPI.COMM_WORLD.size} ranks, accuracy on held-out digits: {accuracy}")
