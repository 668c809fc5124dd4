"""The step of ``vs_peers.py`` in PyTorch: DistributedDataParallel with gloo."""

import json
import os
import sys
import time


def main(rank, size, port, model, layers, n_rows, steps):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [cores[rank % len(cores)]])
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    where = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size)
    torch.manual_seed(0)
    net = torch.nn.parallel.DistributedDataParallel(network(layers))
    if model == "logistic":
        target = torch.randint(0, 2, (n_rows, 1)).float()
        loss = torch.nn.BCEWithLogitsLoss()
    else:
        target = torch.randint(0, layers[-1], (n_rows,))
        loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    x = torch.randn(n_rows, layers[0])
    seconds = []
    for _ in range(1 + steps // 10 + steps):
        last = time.perf_counter()
        optimizer.zero_grad(set_to_none=False)
        loss(net(x), target).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - last)
    slowest = torch.tensor(seconds[-steps:], dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    if rank == 0:
        print(json.dumps({"median_step_s": slowest.median().item()}), flush=True)
    dist.barrier()
    os._exit(0)  # gloo's threads sometimes abort a process that exits normally


def network(layers):
    from torch import nn

    parts = []
    for n_in, n_out in zip(layers, layers[1:]):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


if __name__ == "__main__":
    rank, size, port, model, layers, n_rows, steps = sys.argv[1:]
    widths = [int(n) for n in layers.split(",")]
    main(int(rank), int(size), port, model, widths, int(n_rows), int(steps))
