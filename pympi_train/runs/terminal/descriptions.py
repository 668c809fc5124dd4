"""Lines on the parts of a training: its rows, classes, exchange and gradient noise."""

from pympi_train.data.formats.rows import listed, shown
from pympi_train.runs.speech import counted

SOME_CLASSES = 5  # number of classes listed with their row counts
_TOLD = ("stage", "nodes", "servers", "staleness", "local_steps", "outer")
_LABELS = {"node": "memory of the node", "mpi": "MPI", "pieces": "MPI in pieces"}


def training_lines(config, data, trainer):
    """Return the lines on data, model, optimizer, ranks and exchange of a training."""
    lines = [_data_line(data), *(f"warning  {remark}" for remark in data.remarks)]
    size = counted(trainer.model.layout.n_parameters, "parameter")
    lines.append(f"model    {config.model.kind}, {size}, {config.model.dtype}")
    lines.append(_optimizer_line(config, data.train.n))
    comm, backend = trainer.comm, trainer.backend
    has_servers = config.parallel.strategy == "server"
    servers = config.parallel.servers if has_servers else 0
    beside = f" and {counted(servers, 'server')}" if servers else ""
    lines.append(
        f"ranks    {comm.size}{beside}, {counted(trainer.n_threads, 'thread')} each; "
        f"backend {backend.name} ({backend.reason})"
    )
    if comm.size > 1:
        lines.append(f"exchange {exchange_line(trainer.exchange)}")
    return lines


def _data_line(data):
    schema, files = data.schema, data.files
    rows, names = rows_line(data), schema.feature_names or ()
    if schema.format in ("npz", "h5", "zarr") and len(names) > 1:
        rows += f" (of the arrays {listed(names)})"
    kind = classes_line(data) if schema.classes is not None else ""
    what = "window" if schema.format == "tokens" else "row"
    n_held = data.validation.n if data.validation is not None else 0
    held = counted(n_held, f"validation {what}")
    n_files = len(files.paths)
    name = f"{files.name}, {n_files} files" if n_files > 1 else files.name
    return f"data     {name}: {rows}{kind}; {held}{describe_storage(data.train)}"


def _optimizer_line(config, n_rows):
    name, epochs = config.optimizer.name, config.train.epochs
    if name == "lbfgs":
        return f"training lbfgs, at most {counted(epochs, 'iteration')}"
    batch = n_rows if name == "gd" else min(config.train.batch_size, n_rows)
    return (
        f"training {name}, learning rate {config.optimizer.learning_rate:g}, global "
        f"batch {batch:,}, {counted(epochs, 'epoch')}, seed {config.train.seed}"
    )


def rows_line(data):
    """Return "1,500 rows x 64 features", or "100 windows of 64 tokens, ..."."""
    schema, n = data.schema, data.train.n
    if schema.format == "tokens":
        size = f"{counted(n, 'window')} of {counted(schema.window, 'token')}"
        return f"{size}, vocabulary {schema.n_tokens:,}"
    rows = f"{counted(n, 'row')} x {counted(schema.n_features, 'feature')}"
    return rows + (", sparse" if data.train.is_sparse else "")


def classes_line(data):
    """Return ", 3 classes ('cat': 20, 'dog': 20, 'fish': 20)"; lists the first few."""
    classes, counts = data.schema.classes.tolist(), data.class_counts.tolist()
    names = [shown(c, 20) if isinstance(c, str) else c for c in classes[:SOME_CLASSES]]
    first = ", ".join(f"{name}: {n:,}" for name, n in zip(names, counts))
    more = len(classes) - len(names)
    end = f" and {more:,} more" if more else ""
    return f", {counted(len(classes), 'class', 'classes')} ({first}{end})"


def exchange_line(chosen):
    """Return a line that names the exchange between ranks and why it was chosen."""
    name = chosen["strategy"]
    text = name + compare_seconds(name, chosen.get("strategy_seconds"))
    text += "".join(
        f", {key.replace('_', ' ')} {chosen[key]}" for key in _TOLD if key in chosen
    )
    if "exchange" in chosen:
        how = chosen["exchange"]
        times = compare_seconds(how, chosen.get("exchange_seconds"))
        text += f" by {_LABELS.get(how, how)}{times}"
        text += f", overlap {chosen.get('overlap', 'to be measured')}"
    if chosen.get("transport", chosen.get("exchange")) != chosen.get("exchange"):
        text += f", transport {chosen['transport']}"
    if "passed_over" in chosen:
        text += f" (not {chosen['passed_over']})"
    return text


def describe_noise(noise):
    """Return a line on the critical batch size of `gradient_noise.noise_scale`."""
    if noise["trace"] is None:
        return (
            "not measured: it takes two ranks, or a [train] micro_batch_size of at "
            "most half of a rank's share of the batch"
        )
    if noise["critical_batch_size"] is None:
        return "larger than the gradient: the critical batch size is not to be seen"
    rows = float(f"{noise['critical_batch_size']:.3g}")
    return (
        f"critical batch size about {rows:,.10g} rows, by the gradients of "
        f"{noise['between']} (the last 100 steps)"
    )


def compare_seconds(name, seconds):
    """Return " (2.1 ms; other 2.9 ms)": the time of ``name``, then of the others."""
    if not seconds:
        return ""
    times = [f"{1e3 * seconds[name]:.3g} ms"]
    for other, other_s in seconds.items():
        if other != name:
            times.append(f"{_LABELS.get(other, other)} {1e3 * other_s:.3g} ms")
    return f" ({'; '.join(times)})"


def describe_storage(train):
    """Return where features are and how their order is, if that is not the default."""
    where = getattr(train, "where", "in memory")
    text = "" if where == "in memory" else f"; features {where}"
    order = getattr(train, "order", None)
    if order is not None:
        text += f"; windows of {order.window_rows:,} rows in {order.n_shards:,} shards"
    return text
