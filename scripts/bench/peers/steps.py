"""Seconds of one training step, of this package and of peers that take the same step.

Same models, same rows per rank, float32, Adam, one thread per rank. PyTorch: DDP, gloo
and Adam(fused=True); JAX: jitted, gloo; plain: NumPy and mpi4py as in educational
codes; scikit-learn: MLPClassifier, one process with the rows and threads of all ranks.
"""

from peers.environments import HERE, free_port, on_ranks, run

CASES = (  # model, layers, rows per rank, steps
    ("softmax", "784,10", 64, 1000),
    ("logistic", "1000,1", 256, 1000),
    ("mlp", "784,512,512,10", 64, 200),
    ("mlp", "784,512,512,10", 256, 100),
    ("mlp", "300,700,700,700,50", 96, 100),
    ("mlp", "1024,2048,2048,1000", 64, 30),
)
PEERS = ("torch", "jax", "plain", "sklearn")
RANKS = 2
SLOW = {"jax": 4, "sklearn": 4}  # take a fraction of the steps


def measure(peers, pythons, repeats):
    """Yield (question, {side: [seconds of a step, by round]}) for each case.

    Parameters
    ----------
    peers : sequence of str
        Those that are not in ``PEERS`` have no part.
    pythons : dict of str to str
        Python of the peers that have environments of their own.
    repeats : int
        Rounds, in which all sides take turns.
    """
    peers = [peer for peer in peers if peer in PEERS]
    for case in CASES:
        model, layers, rows, _ = case
        rounds: dict = {side: [] for side in ("ours", *peers)}
        for _ in range(repeats):
            for side, found in rounds.items():
                found.append(one(side, pythons, case))
        yield f"step, {model} {layers}, {rows} rows per rank", rounds


def one(side, pythons, case):
    """Return the median seconds of a step of one side."""
    model, layers, rows, steps = case
    task = [model, layers, str(rows), str(steps // SLOW.get(side, 1))]
    worker = str(HERE / f"{side}_step.py")
    if side == "ours":
        options = ["--model", "--layers", "--batch-size", "--steps"]
        pairs = [word for pair in zip(options, task) for word in pair]
        step = ["-m", "pympi_train", "bench", "step", "--json", *pairs]
        found = run([on_ranks(RANKS, *step)])
    elif side == "plain":
        found = run([on_ranks(RANKS, worker, *task)])
    elif side == "sklearn":
        alone = [layers, str(rows * RANKS), task[-1]]
        found = run([[pythons[side], worker, *alone]], n_threads=RANKS)
    else:
        start, port = [pythons[side], worker], str(free_port())
        ends = [[str(i), str(RANKS), port, *task] for i in range(RANKS)]
        found = run([[*start, *end] for end in ends])
    return found["median_step_s"]
