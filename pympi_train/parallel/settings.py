"""The keys of ``[parallel]``, and their invalid combinations."""

import dataclasses
from dataclasses import dataclass

from pympi_train.errors import ConfigError
from pympi_train.keys import MOST, checked, key


@dataclass(frozen=True)
class Parallel:
    """The settings of parallel training: what ranks hold, and what they send when.

    They are the section ``[parallel]`` of a configuration and an argument of
    ``Trainer``.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range.
    """

    strategy: str = key(
        "how ranks share data, parameters and sums; auto: the fastest by measurement",
        "auto",
        choices=("auto", "allreduce", "hierarchical", "sharded", "server", "local"),
    )
    stage: int = key(
        "sharded: what is sharded: 1 optimizer state, 2 also gradients, 3 also "
        "parameters",
        1,
        least=1,
        most=3,
    )
    servers: int = key(
        "server: number of ranks, the last ones, that hold parameters and no rows",
        1,
        least=1,
        most=MOST,
    )
    staleness: int = key(
        "server: maximum steps that a worker is ahead of the slowest; 0: synchronous",
        0,
        least=0,
        most=1000,
    )
    local_steps: int = key(
        "local: steps of each rank between two exchanges", 8, least=1, most=MOST
    )
    outer: str = key(
        "local: average the parameters, or take an outer Nesterov step",
        "average",
        choices=("average", "nesterov"),
    )
    compression: str = key(
        "compression of the sent data, with error feedback",
        "none",
        choices=("none", "fp16", "bf16", "int8", "topk", "powersgd"),
    )
    reduction: str = key(
        "method of summation; exact: the same bits on any number of ranks",
        "fast",
        choices=("fast", "exact"),
    )
    virtual_shards: int = key(
        "reduction exact: number of groups of rows, at least the number of ranks",
        8,
        least=1,
        most=65536,
    )
    bucket_bytes: int = key(
        "allreduce, overlap: maximum size of a bucket; a bucket is sent as soon as "
        "backward has filled it",
        25 * 2**20,
        least=1024,
        most=MOST,
    )
    overlap: str = key(
        "allreduce: send while backward computes; auto: if measured to be faster",
        "auto",
        choices=("auto", "on", "off"),
    )
    transport: str = key(
        "backend cuda: library that moves gradients between GPUs; auto: the first of "
        "nccl, mpi and staged that all ranks have",
        "auto",
        choices=("auto", "nccl", "mpi", "staged"),
    )
    timeout_s: float = key(
        "a rank that waits longer for another rank ends the job and names that rank; "
        "0: never",
        600.0,
        least=0,
        most=1e9,
    )
    check_every: int = key(
        "steps between two comparisons of the ranks' parameters; 0: none",
        1000,
        least=0,
        most=MOST,
    )
    debug: bool = key(
        "check before each collective that all ranks call the same one; if not, "
        "report where each rank is",
        False,
    )

    def __post_init__(self):
        for f in dataclasses.fields(self):
            checked(f, getattr(self, f.name), "parallel:")

    @property
    def n_groups(self):
        """Number of groups of rows with reduction exact, else None."""
        return self.virtual_shards if self.reduction == "exact" else None


NOT_BALANCED = (
    "balance does not work with strategy local: each rank steps on rows of its own, so "
    "that the result would depend on where they are"
)


def _differs(*names):
    """Return a function: whether one of ``names`` differs from its default."""
    default = Parallel()
    return lambda c: any(
        getattr(c.parallel, name) != getattr(default, name) for name in names
    )


def _is(*strategies):
    return lambda c: c.parallel.strategy in strategies


def _only_for(strategy, *names):
    """Return a rule: ``names`` apply to one strategy only."""
    verb = "are" if len(names) > 1 else "is"
    return (
        f"{' and '.join(names)} {verb} for strategy {strategy}",
        lambda c: _differs(*names)(c) and not _is(strategy)(c),
    )


# As RULES in config/rules.py, but they read only c.parallel and c.optimizer.
PARALLEL_RULES = (
    (
        "timeout_s must be 0, for never, or at least 1: ranks that share a processor "
        "wait for each other for some time",
        lambda c: 0 < c.parallel.timeout_s < 1,
    ),
    _only_for("sharded", "stage"),
    _only_for("server", "servers", "staleness"),
    _only_for("local", "local_steps", "outer"),
    (
        "lbfgs works with strategy allreduce and no compression: its line search "
        "compares exact sums",
        lambda c: c.optimizer.name == "lbfgs"
        and (not _is("auto", "allreduce")(c) or c.parallel.compression != "none"),
    ),
    (
        "reduction exact works with strategy allreduce: it fixes the order of "
        "summation",
        lambda c: c.parallel.reduction == "exact" and not _is("auto", "allreduce")(c),
    ),
    (
        "reduction exact and compression contradict each other",
        lambda c: c.parallel.reduction == "exact" and c.parallel.compression != "none",
    ),
    (
        "virtual_shards is for reduction exact",
        lambda c: c.parallel.reduction != "exact" and _differs("virtual_shards")(c),
    ),
    (
        "compression topk and powersgd need the whole gradient: they work with "
        "strategies allreduce and local",
        lambda c: c.parallel.compression in ("topk", "powersgd")
        and not _is("auto", "allreduce", "local")(c),
    ),
    (
        "compression does not work with strategy sharded: MPI itself sums a layer's "
        "slices to their owners",
        lambda c: c.parallel.compression != "none" and _is("sharded")(c),
    ),
    (
        "overlap on is for strategy allreduce",
        lambda c: c.parallel.overlap == "on" and not _is("auto", "allreduce")(c),
    ),
    (
        "overlap on works with reduction fast and no compression: only plain sums are "
        "sent in buckets",
        lambda c: c.parallel.overlap == "on"
        and (c.parallel.reduction == "exact" or c.parallel.compression != "none"),
    ),
    (
        "bucket_bytes is for strategy allreduce",
        lambda c: _differs("bucket_bytes")(c) and not _is("auto", "allreduce")(c),
    ),
)


# Settings that a GPU does not support; c has parallel, optimizer and train.
CUDA_RULES = (
    (
        "strategy hierarchical shares a node's host memory: on GPUs, use strategy "
        "allreduce, with NCCL within a node",
        _is("hierarchical"),
    ),
    (
        "strategy server keeps parameters in host memory: it works with backend "
        "numpy and numba",
        _is("server"),
    ),
    (
        "reduction exact works with backend numpy and numba: it is not verified that "
        "products have the same bits on all GPUs",
        lambda c: c.parallel.reduction == "exact",
    ),
    (
        "compression topk and powersgd compute with NumPy: they work with backend "
        "numpy and numba",
        lambda c: c.parallel.compression in ("topk", "powersgd"),
    ),
)
HALF_RULES = (
    (
        "precision float16 and bfloat16 work with strategy allreduce",
        lambda c: c.train.precision != "full" and not _is("auto", "allreduce")(c),
    ),
    (
        "precision float16 and bfloat16 already send gradients in 2 bytes: they work "
        "with no compression",
        lambda c: c.train.precision != "full" and c.parallel.compression != "none",
    ),
    (
        "precision float16 and bfloat16 sum whole gradients: overlap on is for "
        "precision full",
        lambda c: c.train.precision != "full" and c.parallel.overlap == "on",
    ),
    (
        "lbfgs compares costs to the last digits: it needs precision full",
        lambda c: c.train.precision != "full" and c.optimizer.name == "lbfgs",
    ),
)


def why_unfit_for_gpu(parallel, optimizer, precision):
    """Return why these settings cannot run on a GPU, or None.

    ``optimizer`` and ``precision`` are names.
    """
    c = _Triple(parallel, _Named(optimizer), _Precise(precision))
    for reason, broken in (*CUDA_RULES, *HALF_RULES):
        if broken(c):
            return reason
    return None


def require_sense(parallel, optimizer):
    """Raise ConfigError if ``parallel`` is invalid, alone or with this optimizer."""
    for reason, broken in PARALLEL_RULES:
        if broken(_Pair(parallel, _Named(optimizer))):
            raise ConfigError(f"parallel: {reason}")


@dataclass(frozen=True)
class _Named:
    name: str


@dataclass(frozen=True)
class _Precise:
    precision: str


@dataclass(frozen=True)
class _Pair:
    parallel: Parallel
    optimizer: _Named


@dataclass(frozen=True)
class _Triple(_Pair):
    train: _Precise
