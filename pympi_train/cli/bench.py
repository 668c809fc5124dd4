"""``pympi-train bench``: time updates, exchanges, steps and reads on this machine."""

from pympi_train.cli import add_common
from pympi_train.runs.speech import say

ABOUT_OPTIMIZER = (
    "Time the update of one flat block of random parameters on every available "
    "backend. For comparison, a triad a = b + s c measures the memory bandwidth. Run "
    "on one rank."
)
ABOUT_STEP = (
    "Time steps of the real training loop on random rows in memory, and report the "
    "time of each part. Start it with mpirun or srun for several ranks."
)
ABOUT_EXCHANGE = (
    "Time the sum of a block of gradients over the ranks, and for comparison MPI's own "
    "Allreduce on the same block (plain). Start it with mpirun or srun on at least two "
    "ranks. pieces: MPI in several calls. slices: each rank adds up one slice. times "
    "plain: the median over rounds of the ratio within a round; on a busy machine it "
    "differs from the ratio of the medians. plain again: a second timing of plain; its "
    "distance from 1 is the noise. Takes up to 6 s per size."
)
ABOUT_KERNELS = (
    "Time every hot loop of a backend on arrays of one size, and for comparison a "
    "plain copy of such an array. Prints the median seconds, the minimum of bytes to "
    "move, and the bandwidth as a fraction of the copy's. Run on one rank."
)
ABOUT_IO = (
    "Write a file to FOLDER, time reads of it, and remove it. read: plain reads from "
    "start to end into a buffer. file, window, full: batches of a mapped .npy of rows "
    "of 3 KB, in the order of the file and in the orders of [data] order. Before each "
    "timing the file is dropped from the page cache of this node (posix_fadvise). "
    "times read: the median over rounds of the ratio within a round. With --format "
    "parquet or csv: a table with 257 columns of float32. pyarrow: read by it alone; "
    "matrix: and copied to rows; rows: by this package. in memory, stream: an epoch of "
    "an MLP on its rows. Run on one rank."
)
ABOUT_CHECKPOINT = (
    "Train a perceptron with Adam whose state has --size bytes, and write checkpoints "
    "of it to FOLDER, which are removed. plain: each rank writes as much of a file, "
    "with fsync. delay: by how much a checkpoint in the background delays the steps. "
    "Start it with mpirun or srun for several ranks."
)
BACKENDS = ("auto", "numpy", "numba", "cuda")
OPTIMIZERS = ("gd", "sgd", "adam", "adamw")
MODELS = ("linear", "logistic", "softmax", "mlp")
ROWS = {
    "median step": ("median_step_s", "of the slowest rank"),
    "mean step": ("mean_step_s", "over steps and ranks, of which"),
    "  compute": ("compute_s", ""),
    "  communication": ("communication_s", "with waiting for others"),
    "  update": ("update_s", ""),
}


def add_arguments(parser):
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    _add_optimizer(kinds)
    _add_step(kinds)
    _add_exchange(kinds)
    _add_kernels(kinds)
    _add_io(kinds)
    _add_checkpoint(kinds)


def _add_optimizer(kinds):
    parser = kinds.add_parser(
        "optimizer",
        help="the update of a flat parameter block",
        description=ABOUT_OPTIMIZER,
    )
    parser.add_argument(
        "--name", choices=OPTIMIZERS, default="adam", help="(%(default)s)"
    )
    parser.add_argument(
        "--size", type=_count, default=25_000_000, help="parameters (%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--repeats", type=_count, default=10, help="timed updates (%(default)s)"
    )
    add_common(parser, run_optimizer)


def _add_step(kinds):
    parser = kinds.add_parser(
        "step", help="a whole training step, under mpirun", description=ABOUT_STEP
    )
    parser.add_argument("--model", choices=MODELS, default="mlp", help="(%(default)s)")
    parser.add_argument(
        "--layers",
        type=lambda text: [_count(part) for part in text.split(",")],
        default=[784, 512, 512, 10],
        help="features, hidden widths of an mlp, outputs (784,512,512,10)",
    )
    parser.add_argument(
        "--batch-size",
        type=_count,
        default=64,
        metavar="PER_RANK",
        help="rows per rank (%(default)s)",
    )
    parser.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="adam", help="(%(default)s)"
    )
    parser.add_argument(
        "--steps", type=_count, default=100, help="timed steps (%(default)s)"
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--parallel",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="keys of [parallel], such as overlap=on",
    )
    add_common(parser, run_step)


def _add_exchange(kinds):
    parser = kinds.add_parser(
        "exchange", help="the sum of gradients over ranks", description=ABOUT_EXCHANGE
    )
    parser.add_argument(
        "--max-bytes",
        type=_count,
        default=100_000_000,
        help="bytes of the largest block (%(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=_count,
        default=20,
        help="maximum number of timings of each method (%(default)s)",
    )
    add_common(parser, run_exchange)


def _add_kernels(kinds):
    parser = kinds.add_parser(
        "kernels", help="every hot loop of a backend", description=ABOUT_KERNELS
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="(%(default)s)"
    )
    parser.add_argument(
        "--size", type=_count, help="elements (10000000; on a GPU 67108864)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--repeats", type=_count, default=10, help="timings of each (%(default)s)"
    )
    add_common(parser, run_kernels)


def _add_io(kinds):
    parser = kinds.add_parser("io", help="reading rows of a file", description=ABOUT_IO)
    parser.add_argument("folder", metavar="FOLDER", help="on the file system to time")
    parser.add_argument(
        "--size", type=_count, default=10**9, help="bytes of the rows (%(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("npy", "parquet", "csv"),
        default="npy",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--rounds", type=_count, default=3, help="timings of each (%(default)s)"
    )
    add_common(parser, run_io)


def _add_checkpoint(kinds):
    parser = kinds.add_parser(
        "checkpoint",
        help="writing checkpoints, under mpirun",
        description=ABOUT_CHECKPOINT,
    )
    parser.add_argument("folder", metavar="FOLDER", help="on the file system to time")
    parser.add_argument(
        "--size", type=_count, default=10**9, help="bytes of the state (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=_count, default=3, help="timings of each (%(default)s)"
    )
    add_common(parser, run_checkpoint)


def _count(text):
    import argparse

    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1, got {text!r}"
        )
    return value


def run_optimizer(args, comm):
    from pympi_train.bench import optimizer
    from pympi_train.comm.mesh import set_threads

    n_threads = set_threads(comm)
    found = optimizer.measure(
        args.name, args.size, dtype=args.dtype, repeats=args.repeats
    )
    if comm.rank == 0 and not args.json:
        say(
            f"{args.name}, {args.size:,} parameters, {args.dtype}, threads: {n_threads}"
        )
        for name, backend in found["backends"].items():
            share = 100 * backend["bytes_per_s"] / backend["stream_bytes_per_s"]
            say(
                f"{name:6} {1e3 * backend['median_s']:8.3f} ms "
                f"{backend['bytes_per_s'] / 1e9:7.2f} GB/s, {share:.0f} % of a triad"
            )
    return found


def run_step(args, comm):
    from pympi_train.bench import step

    found = step.measure(
        comm,
        model=args.model,
        layers=args.layers,
        batch_size=args.batch_size,
        optimizer=args.optimizer,
        steps=args.steps,
        backend=args.backend,
        parallel=args.parallel,
    )
    if comm.rank == 0 and not args.json:
        _print_step(found)
    return found


def _print_step(found):
    layers = ",".join(map(str, found["layers"]))
    say(
        f"{found['model']} {layers}, {found['parameters']:,} parameters, "
        f"{found['batch_size']:,} rows a rank, {found['optimizer']}, "
        f"{found['steps']:,} steps"
    )
    say(
        f"ranks: {found['ranks']}, threads of each: {found['n_threads']}, "
        f"backend {found['backend']}"
    )
    if found["ranks"] > 1:
        from pympi_train.runs.console import exchange_line

        say(f"exchange: {exchange_line(found['exchange'])}")
    for name, (key, note) in ROWS.items():
        say(f"{name:15} {1e3 * found[key]:10.4f} ms  {note}".rstrip())
    say(f"{'samples/s':15} {found['samples_per_s']:10,.0f}     by the median step")


def run_exchange(args, comm):
    from pympi_train.bench import exchange
    from pympi_train.comm.checks import agreed_within
    from pympi_train.comm.mesh import set_threads
    from pympi_train.errors import ConfigError

    set_threads(comm)
    if comm.size == 1:
        text = "bench exchange needs at least two ranks: mpirun -n 2 pympi-train ..."
        raise agreed_within(comm, ConfigError(text))
    found = exchange.measure(comm, max_bytes=args.max_bytes, rounds=args.rounds)
    if comm.rank == 0 and not args.json:
        _print_exchange(found)
    return found


def _print_exchange(found):
    say(f"{found['ranks']} ranks, {found['dtype']}, {found['library']}")
    say(f"{'bytes':>11}  {'way':20} {'median':>12} {'GB/s':>8}  times plain")
    for size in found["sizes"]:
        for name, way in size["ways"].items():
            by = f" by {size['exchange']}" if name == "allreduce" else ""
            _print_way(size["bytes"], name, way, f"{way['times_plain']:.2f}{by}")
        for name, way in size["updates"].items():
            times = f"     {way['times_allreduce']:.2f} times allreduce + adam"
            _print_way(size["bytes"], f"{name} + adam", way, times)


def _print_way(n_bytes, name, way, times):
    say(
        f"{n_bytes:11,}  {name:20} {1e3 * way['median_s']:9.4f} ms "
        f"{way['bytes_per_s'] / 1e9:8.3f}  {times}"
    )


def run_kernels(args, comm):
    from pympi_train.bench import kernels
    from pympi_train.comm.devices import choose_backend
    from pympi_train.comm.mesh import set_threads

    set_threads(comm)
    backend = choose_backend(comm, args.backend)
    size = args.size or (2**26 if backend.ops.ON_DEVICE else 10**7)
    found = kernels.measure(backend, size, args.dtype, args.repeats)
    if comm.rank == 0 and not args.json:
        say(f"backend {found['backend']} ({found['reason']})")
        rate = found["copy_bytes_per_s"] / 1e9
        say(f"{size:,} elements, {args.dtype}; a copy moves {rate:.2f} GB/s")
        say(f"{'':32} {'median':>12} {'GB/s':>9}  of a copy")
        for name, one in found["kernels"].items():
            say(
                f"{name:32} {1e3 * one['median_s']:9.4f} ms "
                f"{one['bytes_per_s'] / 1e9:9.2f}  {100 * one['share_of_copy']:5.0f} %"
            )
    return found


def run_io(args, comm):
    from pympi_train.bench import reading, tables
    from pympi_train.comm.checks import on_root

    def measure():
        how = args.size, args.rounds
        if args.format == "npy":
            return reading.measure(args.folder, *how)
        return tables.measure(args.folder, args.format, *how)

    found = on_root(comm, measure)
    if comm.rank == 0 and not args.json:
        (_print_io if args.format == "npy" else _print_tables)(found)
    return found


def _print_tables(found):
    say(
        f"{found['rows']:,} rows of {found['features']} features and a target, "
        f"{found['bytes']:,} bytes in memory; {found['group_rows']:,} rows a group"
    )
    for name, way in found["ways"].items():
        say(
            f"{name:10}{way['median_s']:8.3f} s, {way['cpu_s']:8.3f} s of CPU: "
            f"{way['times']:.2f} and {way['cpu_times']:.2f} times {way['beside']}"
        )


def _print_io(found):
    say(
        f"{found['bytes']:,} bytes in rows of {found['row_bytes']:,}, batches of "
        f"{found['batch_rows']}; window: {found['order_shards']} shards, windows of "
        f"{found['order_window']} rows"
    )
    cached = found["cached"]
    if cached is None:
        say("whether the page cache was empty before each timing is unknown")
    else:
        say(f"in the page cache before each timing: at most {100 * cached:.0f} %")
    for name, way in found["ways"].items():
        rate, times = way["bytes_per_s"] / 1e9, way["times_read"]
        say(f"{name:7} {rate:8.3f} GB/s  {100 * times:4.0f} % of read")


def run_checkpoint(args, comm):
    from pympi_train.bench import saving

    found = saving.measure(comm, args.folder, args.size, args.rounds)
    if comm.rank == 0 and not args.json:
        _print_checkpoint(found)
    return found


def _print_checkpoint(found):
    say(
        f"{found['bytes']:,} bytes, {found['parameters']:,} parameters, "
        f"ranks: {found['ranks']}"
    )
    say(f"plain       {found['plain_bytes_per_s'] / 1e9:8.3f} GB/s")
    rate, times = found["checkpoint_bytes_per_s"] / 1e9, found["times_plain"]
    say(f"checkpoint  {rate:8.3f} GB/s  {100 * times:4.0f} % of plain")
    say(f"step        {1e3 * found['step_s']:8.2f} ms")
    say(f"copy        {1e3 * found['copy_s']:8.2f} ms, before the next step")
    say(
        f"delay       {1e3 * found['delay_s']:8.2f} ms of all steps, "
        f"{100 * found['overhead']:.2f} % with one every 600 s"
    )
