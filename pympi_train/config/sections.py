"""The sections of the configuration file: keys, types, defaults and limits."""

from dataclasses import dataclass

from pympi_train.keys import MOST, key


@dataclass(frozen=True)
class ModelConfig:
    """The section ``[model]``: the model and its loss."""

    kind: str = key(
        "the model; neural-ngram is a language model, for token files",
        choices=("linear", "logistic", "softmax", "mlp", "neural-ngram"),
    )
    hidden: list[int] = key(
        "mlp, neural-ngram: width of each hidden layer",
        [128, 64],
        least=1,
        most=10_000_000,
    )
    activation: str = key(
        "mlp, neural-ngram: activation", "relu", choices=("relu", "tanh", "gelu")
    )
    context: int = key(
        "neural-ngram: number of tokens that the next one is predicted from",
        4,
        least=1,
        most=10_000,
    )
    embedding: int = key(
        "neural-ngram: length of the vector of a token", 32, least=1, most=10_000_000
    )
    vocabulary: int | None = key(
        "neural-ngram: tokens are 0 to vocabulary - 1; if omitted, up to the largest "
        "token of the training and validation files",
        None,
        least=2,
        most=2**31 - 2,
    )
    init: str = key(
        "mlp, neural-ngram: scale of the initial weights of hidden layers",
        "glorot",
        choices=("glorot", "he"),
    )
    task: str = key(
        "mlp: the kind of outputs",
        "classification",
        choices=("classification", "regression"),
    )
    intercept: bool = key("linear, logistic, softmax: fit an intercept", True)
    l2: float = key(
        "add (l2/2)|W|^2 to the loss, for weights, not biases", 0.0, least=0
    )
    class_weights: str | dict[str, float] | None = key(
        'classification: "balanced", or a table of label = weight', None
    )
    dtype: str = key(
        "type of parameters and features", "float32", choices=("float32", "float64")
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """The section ``[optimizer]``: the algorithm and its learning rate."""

    name: str = key(
        "the algorithm",
        "adam",
        choices=("gd", "sgd", "adam", "adamw", "adagrad", "lbfgs"),
    )
    learning_rate: float = key("step size; unused by lbfgs", 1e-3, above=0)
    momentum: float = key("sgd: heavy-ball momentum", 0.0, least=0, below=1)
    nesterov: bool = key("sgd: Nesterov's momentum", False)
    weight_decay: float = key(
        "sgd, adam, adagrad: added to the gradient; adamw: decoupled; weights, not "
        "biases",
        0.0,
        least=0,
    )
    beta1: float = key("adam, adamw: decay of the first moment", 0.9, least=0, below=1)
    beta2: float = key(
        "adam, adamw: decay of the second moment", 0.999, least=0, below=1
    )
    eps: float = key(
        "adam, adamw, adagrad: floor of the denominator", 1e-8, least=1e-30, below=1
    )
    clip_norm: float | None = key(
        "maximum global norm of the mean gradient", None, above=0
    )
    schedule: str = key(
        "schedule of the learning rate",
        "constant",
        choices=("constant", "step", "cosine"),
    )
    warmup_epochs: float = key("epochs of linear warm-up", 0.0, least=0, most=1e9)
    step_epochs: int = key(
        "schedule step: epochs between two reductions", 30, least=1, most=MOST
    )
    gamma: float = key("schedule step: factor of a reduction", 0.1, above=0, most=1)
    floor: float = key(
        "schedule cosine: final learning rate / initial", 0.0, least=0, most=1
    )
    history: int = key("lbfgs: number of pairs kept", 10, least=1, most=1000)
    tolerance: float = key(
        "lbfgs: stop when max|gradient| is at most this", 1e-5, least=0
    )


@dataclass(frozen=True)
class TrainConfig:
    """The section ``[train]``: epochs, batches, backend and early stopping."""

    epochs: int = key(
        "passes over the training rows; lbfgs: maximum number of iterations",
        20,
        least=1,
        most=MOST,
    )
    batch_size: int = key(
        "rows of a global batch; gd and lbfgs use all rows", 256, least=1, most=MOST
    )
    micro_batch_size: int = key(
        "maximum rows that a rank computes at once; it accumulates the gradients of "
        "a larger share; neural-ngram: fewer if their outputs, window times "
        "vocabulary each, would be more than 2^26 numbers",
        4096,
        least=1,
        most=MOST,
    )
    seed: int = key(
        "seed of the row order, the held-out rows and the initial parameters",
        0,
        least=0,
        most=2**64 - 1,
    )
    init: str | None = key(
        "weights to start from: the run directory or a checkpoint of another training, "
        "relative to the configuration file",
        None,
    )
    backend: str = key(
        "implementation of the hot loops; auto: cuda if every rank has a GPU that "
        "works, else numba if it is installed and the job takes more than a second or "
        "two, else numpy",
        "auto",
        choices=("auto", "numpy", "numba", "cuda"),
    )
    precision: str = key(
        "backend cuda: precision of computation; parameters stay in [model] dtype",
        "full",
        choices=("full", "float16", "bfloat16"),
    )
    patience: int | None = key(
        "stop after this many epochs without a better monitor, and keep the best "
        "weights",
        None,
        least=1,
        most=MOST,
    )
    monitor: str = key(
        "quantity for patience and target; auto: validation_loss if there are "
        "validation rows, else train_loss",
        "auto",
        choices=("auto", "train_loss", "validation_loss", "accuracy", "rmse", "r2"),
    )
    target: float | None = key(
        "stop after the first epoch whose monitor has reached this value", None
    )
    gradient_noise: bool = key(
        "estimate the critical batch size from the norms of gradients, each epoch",
        False,
    )


@dataclass(frozen=True)
class OutputConfig:
    """The section ``[output]``: the run directory."""

    directory: str = key(
        "run directory, relative to the configuration file", "runs/run"
    )
    trace: bool = key(
        "record what each rank does when, and write trace.json at the end, for "
        "Perfetto and `pympi-train trace summary`",
        False,
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """The section ``[checkpoint]``: when the state of the training is saved."""

    directory: str | None = key(
        "folder of the checkpoints, relative to the configuration file; default: "
        "checkpoints in the run directory",
        None,
    )
    every_steps: int | None = key("steps between two", None, least=1, most=MOST)
    every_s: float | None = key("seconds between two", 600.0, above=0)
    keep: int = key(
        "number of the newest that are kept; the best epoch's by [train] monitor is "
        "kept as well",
        2,
        least=1,
        most=MOST,
    )
    asynchronous: bool = key(
        "write in the background while the training goes on; takes as much memory as "
        "a rank writes, or else writes at once",
        True,
    )
    on_error: str = key(
        "what follows if one cannot be written: a warning, or the end of the training",
        "warn",
        choices=("warn", "stop"),
    )
    max_time: float | None = key(
        "seconds since the start of the program after which the training has saved "
        "its state and ended; default: the end of the SLURM job",
        None,
        above=0,
    )


@dataclass(frozen=True)
class ElasticConfig:
    """The section ``[elastic]``: ranks that join, leave, die or are slow."""

    ranks: int | None = key(
        "number of ranks that train at first; the others of the job wait until "
        "`pympi-train resize` calls them; default: all",
        None,
        least=1,
        most=MOST,
    )
    balance: bool = key(
        "move rows from slow ranks to fast ones at the end of an epoch", False
    )
    survive: bool = key(
        "go on without ranks that died, where the MPI library reports them (ULFM); "
        "experimental",
        False,
    )


@dataclass(frozen=True)
class SearchConfig:
    """The section ``[search]``: trials of other values, for `pympi-train search`."""

    param: str | list[str] = key(
        "keys to search and their values, as --param takes them: "
        '["optimizer.learning_rate=log:1e-4..1e-1:9", "model.l2=0,1e-4"]',
        [],
    )
    folds: int = key(
        "parts of the rows that are held out in turn; 0 or 1: [data] validation is "
        "used instead",
        5,
        least=0,
        most=1000,
    )
    method: str = key(
        "how trials are chosen: all combinations, random ones, those that survive "
        "with few epochs (halving at once, asha one by one), or by Optuna (tpe)",
        "grid",
        choices=("grid", "random", "halving", "asha", "tpe"),
    )
    trials: int | None = key(
        "number of trials of random, asha and tpe; halving: of random ones, in place "
        "of all combinations",
        None,
        least=1,
        most=10_000,
    )
    metric: str = key(
        "metric of the held-out rows by which trials are compared",
        "loss",
        choices=("loss", "accuracy", "rmse", "r2"),
    )
    seed: int = key(
        "seed of the values of random, asha and tpe", 0, least=0, most=2**32 - 1
    )
    in_flight: int = key(
        "asha, tpe: trials that are chosen before the first of them has a result",
        8,
        least=1,
        most=10_000,
    )
    min_ranks: int = key(
        "ranks of each training at least: raise it if its rows take more memory than "
        "one rank has",
        1,
        least=1,
        most=MOST,
    )
    one_se: bool = key(
        "prefer the simplest model whose mean is within one standard error of the best",
        False,
    )
    refit: bool = key("train the best trial on all rows at the end", False)
    lanes: str = key(
        "whether all trials of a linear model are trained in one pass over the rows; "
        "auto: where that applies",
        "auto",
        choices=("auto", "on", "off"),
    )
