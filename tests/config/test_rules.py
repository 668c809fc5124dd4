"""Combinations that are refused: each rule breaks where it should and only there."""

import pytest

from pympi_train.config.config import parse
from pympi_train.config.rules import RULES, refusal
from pympi_train.errors import ConfigError

TOKENS = ["data.train=x.bin", "data.window=8"]

# Beginning of the reason, kind of model, overrides that break the rule, and that mend.
CASES = [
    (
        "lbfgs is for the convex models",
        "mlp",
        ["optimizer.name=lbfgs"],
        ["model.kind=softmax"],
    ),
    (
        "lbfgs finds its own steps",
        "softmax",
        ["optimizer.name=lbfgs", "optimizer.schedule=cosine"],
        ["optimizer.schedule=constant"],
    ),
    (
        "lbfgs finds its own steps",
        "linear",
        ["optimizer.name=lbfgs", "optimizer.warmup_epochs=1"],
        ["optimizer.warmup_epochs=0"],
    ),
    (
        "lbfgs finds its own steps",
        "logistic",
        ["optimizer.name=lbfgs", "optimizer.clip_norm=1"],
        ["optimizer.name=adam"],
    ),
    (
        "momentum and nesterov are for sgd",
        "mlp",
        ["optimizer.name=adam", "optimizer.momentum=0.9"],
        ["optimizer.name=sgd"],
    ),
    (
        "momentum and nesterov",
        "linear",
        ["optimizer.name=gd", "optimizer.nesterov=true"],
        ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    ),
    (
        "nesterov needs momentum above 0",
        "mlp",
        ["optimizer.name=sgd", "optimizer.nesterov=true"],
        ["optimizer.momentum=0.5"],
    ),
    (
        "weight_decay is for sgd, adam, adamw and adagrad",
        "linear",
        ["optimizer.name=gd", "optimizer.weight_decay=0.1"],
        ["optimizer.name=adamw"],
    ),
    (
        "weight_decay",
        "linear",
        ["optimizer.name=lbfgs", "optimizer.weight_decay=0.1"],
        ["optimizer.weight_decay=0", "model.l2=0.1"],
    ),
    (
        "class_weights are for classification",
        "mlp",
        ["model.task=regression", "model.class_weights=balanced"],
        ["model.task=classification"],
    ),
    (
        'class_weights must be "balanced"',
        "softmax",
        ["model.class_weights=even"],
        ["model.class_weights=balanced"],
    ),
    (
        "class_weights must not be negative",
        "softmax",
        ["model.class_weights={a=1, b=-1}"],
        ["model.class_weights={a=1, b=0}"],
    ),
    (
        "monitor accuracy is for classification",
        "linear",
        ["train.monitor=accuracy", "data.validation=0.1"],
        ["model.kind=softmax"],
    ),
    (
        "monitor rmse and r2 are for regression",
        "softmax",
        ["train.monitor=r2", "data.validation=0.1"],
        ["model.kind=linear"],
    ),
    (
        "target of monitor accuracy or r2 is a share",
        "softmax",
        ["train.monitor=accuracy", "data.validation=0.1", "train.target=96.5"],
        ["train.target=0.965"],
    ),
    (
        "target of monitor accuracy or r2 is a share",
        "linear",
        ["train.monitor=r2", "data.validation=0.1", "train.target=1.01"],
        ["train.target=1"],
    ),
    (
        "monitor needs validation rows",
        "softmax",
        ["train.monitor=validation_loss"],
        ["data.validation=0.1"],
    ),
    (
        "standardize_target is for regression",
        "softmax",
        ["data.standardize_target=true"],
        ["data.standardize_target=false"],
    ),
    (
        "validation_features and validation_target are for",
        "linear",
        ["data.validation_target=y_test", "data.validation=0.5"],
        ["data.validation=v.npz"],
    ),
    (
        "validation in .npy format needs validation_target",
        "linear",
        ["data.validation=v.npy"],
        ["data.validation_target=t.npy"],
    ),
    (
        "timeout_s must be 0",
        "mlp",
        ["parallel.timeout_s=0.5"],
        ["parallel.timeout_s=1"],
    ),
    (
        "stage is for strategy sharded",
        "mlp",
        ["parallel.stage=2"],
        ["parallel.strategy=sharded"],
    ),
    (
        "servers and staleness are for strategy server",
        "mlp",
        ["parallel.staleness=1", "parallel.strategy=local"],
        ["parallel.strategy=server"],
    ),
    (
        "servers and staleness are for strategy server",
        "mlp",
        ["parallel.servers=2"],
        ["parallel.strategy=server"],
    ),
    (
        "local_steps and outer are for strategy local",
        "mlp",
        ["parallel.outer=nesterov"],
        ["parallel.strategy=local"],
    ),
    (
        "lbfgs works with strategy allreduce",
        "softmax",
        ["optimizer.name=lbfgs", "parallel.strategy=hierarchical"],
        ["parallel.strategy=allreduce"],
    ),
    (
        "lbfgs works with strategy allreduce",
        "softmax",
        ["optimizer.name=lbfgs", "parallel.compression=bf16"],
        ["parallel.compression=none"],
    ),
    (
        "reduction exact works with strategy allreduce",
        "mlp",
        ["parallel.reduction=exact", "parallel.strategy=sharded"],
        ["parallel.strategy=auto"],
    ),
    (
        "reduction exact and compression",
        "mlp",
        ["parallel.reduction=exact", "parallel.compression=fp16"],
        ["parallel.compression=none"],
    ),
    (
        "virtual_shards is for reduction exact",
        "mlp",
        ["parallel.virtual_shards=16"],
        ["parallel.reduction=exact"],
    ),
    (
        "compression topk and powersgd",
        "mlp",
        ["parallel.compression=topk", "parallel.strategy=server"],
        ["parallel.strategy=local"],
    ),
    (
        "compression does not work with strategy sharded",
        "mlp",
        ["parallel.compression=bf16", "parallel.strategy=sharded"],
        ["parallel.strategy=allreduce"],
    ),
    (
        "overlap on is for strategy allreduce",
        "mlp",
        ["parallel.overlap=on", "parallel.strategy=sharded"],
        ["parallel.strategy=allreduce"],
    ),
    (
        "overlap on works with reduction fast",
        "mlp",
        ["parallel.overlap=on", "parallel.compression=int8"],
        ["parallel.overlap=auto"],
    ),
    (
        "bucket_bytes is for strategy allreduce",
        "mlp",
        ["parallel.bucket_bytes=4096", "parallel.strategy=local"],
        ["parallel.strategy=auto"],
    ),
    (
        "backend cuda: strategy hierarchical",
        "mlp",
        ["train.backend=cuda", "parallel.strategy=hierarchical"],
        ["parallel.strategy=allreduce"],
    ),
    (
        "backend cuda: strategy server",
        "mlp",
        ["train.backend=cuda", "parallel.strategy=server"],
        ["train.backend=auto"],
    ),
    (
        "backend cuda: reduction exact",
        "mlp",
        ["train.backend=cuda", "parallel.reduction=exact"],
        ["train.backend=numpy"],
    ),
    (
        "backend cuda: compression topk and powersgd",
        "mlp",
        ["train.backend=cuda", "parallel.compression=topk"],
        ["parallel.compression=int8"],
    ),
    (
        "precision float16 and bfloat16 work with strategy allreduce",
        "mlp",
        ["train.precision=float16", "parallel.strategy=sharded"],
        ["parallel.strategy=auto"],
    ),
    (
        "precision float16 and bfloat16 already send gradients in 2 bytes",
        "mlp",
        ["train.precision=bfloat16", "parallel.compression=int8"],
        ["parallel.compression=none"],
    ),
    (
        "precision float16 and bfloat16 sum whole gradients",
        "mlp",
        ["train.precision=float16", "parallel.overlap=on"],
        ["parallel.overlap=auto"],
    ),
    (
        "lbfgs compares costs",
        "softmax",
        ["train.precision=float16", "optimizer.name=lbfgs"],
        ["train.precision=full"],
    ),
    (
        "precision float16 and bfloat16 are for backend cuda",
        "mlp",
        ["train.precision=float16", "train.backend=numba"],
        ["train.backend=auto"],
    ),
    (
        "precision float16 and bfloat16 keep parameters",
        "mlp",
        ["train.precision=float16", "model.dtype=float64"],
        ["model.dtype=float32"],
    ),
    (
        "transport is for backend cuda",
        "mlp",
        ["parallel.transport=nccl", "train.backend=numpy"],
        ["train.backend=cuda"],
    ),
    (
        "balance does not work with strategy local",
        "mlp",
        ["elastic.balance=true", "parallel.strategy=local"],
        ["parallel.strategy=sharded"],
    ),
    (
        "missing_indicator needs missing",
        "linear",
        ["data.missing_indicator=true", "data.missing=drop"],
        ["data.missing=median"],
    ),
    (
        "clip limits standardised features",
        "mlp",
        ["data.clip=5"],
        ["data.standardize=true"],
    ),
    (
        "sparse rows are computed in full precision",
        "softmax",
        ["data.sparse=true", "train.backend=cuda", "train.precision=float16"],
        ["data.sparse=false"],
    ),
    (
        'missing = "mean", "median" and "zero" fill dense rows',
        "softmax",
        ["data.sparse=true", "data.missing=mean"],
        ["data.missing=drop"],
    ),
    (
        "rare_categories is for columns",
        "mlp",
        ["data.rare_categories=5"],
        ["data.ordinal=size"],
    ),
    (
        "split_column and split = \"column\" need each other",
        "mlp",
        ["data.split=column"],
        ["data.split_column=part"],
    ),
    (
        "split_column and split",
        "mlp",
        ["data.split_column=part"],
        ["data.split=column"],
    ),
    (
        "with split = \"column\" the file says",
        "mlp",
        ["data.split=column", "data.split_column=part", "data.validation=0.2"],
        ["data.validation=0"],
    ),
    (
        "split = \"stratified\", group and fold need validation",
        "mlp",
        ["data.split=stratified", "data.validation=v.npz"],
        ["data.validation=0.2"],
    ),
    (
        "split = \"stratified\", group and fold",
        "linear",
        ["data.group=patient"],
        ["data.validation=0.2"],
    ),
    (
        "split = \"stratified\", group and fold",
        "linear",
        ["data.fold=0", "data.validation=0"],
        ["data.validation=0.5"],
    ),
    (
        "split = \"stratified\" is for classification",
        "linear",
        ["data.split=stratified", "data.validation=0.2"],
        ["model.kind=softmax"],
    ),
    (
        "split = \"stratified\" and group",
        "softmax",
        ["data.split=stratified", "data.validation=0.2", "data.group=g"],
        ["data.split=random"],
    ),
    (
        "fold counts from 0",
        "softmax",
        ["data.validation=0.2", "data.fold=5"],
        ["data.fold=4"],
    ),
    (
        "fold counts from 0",
        "softmax",
        ["data.validation=0.3", "data.fold=0"],
        ["data.validation=0.25"],
    ),
    (
        "features in .npy format need target",
        "softmax",
        ["data.train=x.npy", "data.target=y"],
        ["data.target=y.npy"],
    ),
    (
        "oversample is for classification",
        "linear",
        ["data.oversample=balanced"],
        ["model.kind=softmax"],
    ),
    (
        "oversample and class_weights both",
        "softmax",
        ["data.oversample=balanced", "model.class_weights=balanced"],
        ["model.class_weights={}"],
    ),
    (
        'memory = "stream" needs order = "window"',
        "softmax",
        ["data.memory=stream"],
        ["data.memory=stream", "data.order=window"],
    ),
    (
        "order_window and order_shards are for",
        "softmax",
        ["data.order_window=10"],
        ["data.order=window"],
    ),
    (
        "order_window and order_shards are for",
        "softmax",
        ["data.order_shards=8"],
        ["data.order=window"],
    ),
    (
        "order_shards must be a power of two",
        "softmax",
        ["data.order=window", "data.order_shards=12"],
        ["data.order_shards=16"],
    ),
    ("token files (.bin", "softmax", ["data.train=x.bin"], ["data.train=x.csv"]),
    ("token files (.bin", "mlp", ["data.format=tokens"], ["data.format=csv"]),
    (
        "window and token_dtype are for token files",
        "softmax",
        ["data.window=8"],
        ["data.train=x.bin", "model.kind=neural-ngram"],
    ),
    (
        'kind = "neural-ngram" is trained on token files',
        "neural-ngram",
        ["data.window=8"],
        ["data.train=x.bin"],
    ),
    (
        'kind = "neural-ngram" is trained on token files',
        "neural-ngram",
        ["data.window=8", "data.train=x.bin", "data.validation=v.npy"],
        ["data.format=tokens"],
    ),
    (
        "token files have no columns",
        "neural-ngram",
        [*TOKENS, "data.standardize=true"],
        ["data.standardize=false"],
    ),
    (
        "token files have no columns",
        "neural-ngram",
        [*TOKENS, "data.target=label"],
        ["data.target=y"],
    ),
    (
        "of token files, the last windows are held out",
        "neural-ngram",
        ["data.train=x.bin", "data.split=random", "data.validation=0.1"],
        ["data.train=x.csv", "model.kind=softmax"],
    ),
    (
        "token files are mapped",
        "neural-ngram",
        [*TOKENS, "data.memory=in-memory"],
        ["data.memory=mapped"],
    ),
    (
        "class_weights are for classes of rows",
        "neural-ngram",
        ["data.train=x.bin", "model.class_weights=balanced"],
        ["data.train=x.csv", "model.kind=softmax"],
    ),
    (
        'kind = "neural-ngram" computes in full precision',
        "neural-ngram",
        [*TOKENS, "train.backend=cuda", "train.precision=float16"],
        ["train.precision=full"],
    ),
    (
        'kind = "neural-ngram" needs [data] window',
        "neural-ngram",
        ["data.train=x.bin"],
        ["data.window=8"],
    ),
    (
        "context must not exceed [data] window",
        "neural-ngram",
        ["data.train=x.bin", "data.window=3"],
        ["model.context=3"],
    ),
    (
        "survive is for CPUs",
        "mlp",
        ["elastic.survive=true", "train.backend=cuda"],
        ["train.backend=auto"],
    ),
    (
        "survive goes on with all ranks that are left",
        "mlp",
        ["elastic.survive=true", "elastic.ranks=2"],
        ["elastic.survive=false"],
    ),
    (
        "gradient_noise compares gradients at one point",
        "mlp",
        ["train.gradient_noise=true", "parallel.strategy=local"],
        ["parallel.strategy=hierarchical"],
    ),
    (
        "gradient_noise needs the whole gradient",
        "mlp",
        [
            "train.gradient_noise=true",
            "parallel.strategy=sharded",
            "parallel.stage=2",
        ],
        ["parallel.stage=1"],
    ),
    (
        "gradient_noise needs exact sums",
        "mlp",
        ["train.gradient_noise=true", "parallel.compression=fp16"],
        ["parallel.compression=none"],
    ),
    (
        "gradient_noise is for optimizers that step by batches",
        "softmax",
        ["train.gradient_noise=true", "optimizer.name=lbfgs"],
        ["optimizer.name=gd"],
    ),
]


def configuration(kind, overrides):
    text = f'[data]\ntrain = "x.csv"\n[model]\nkind = "{kind}"\n'
    return parse(text, overrides=overrides)


@pytest.mark.parametrize("beginning, kind, broken, mended", CASES)
def test_broken_rule_is_named(beginning, kind, broken, mended):
    with pytest.raises(ConfigError) as info:
        configuration(kind, broken)
    reason = str(info.value).removeprefix("configuration: ")
    assert reason.startswith(beginning)
    assert reason in [reason for reason, _ in RULES]


@pytest.mark.parametrize("beginning, kind, broken, mended", CASES)
def test_mended_configuration_passes(beginning, kind, broken, mended):
    assert refusal(configuration(kind, broken + mended)) is None


def test_every_rule_has_a_case():
    for reason, _ in RULES:
        assert any(reason.startswith(case[0]) for case in CASES), reason


@pytest.mark.parametrize(
    "kind", ["linear", "logistic", "softmax", "mlp", "neural-ngram"]
)
@pytest.mark.parametrize("name", ["gd", "sgd", "adam", "adamw", "adagrad", "lbfgs"])
def test_every_optimizer_but_lbfgs_trains_every_model(kind, name):
    overrides = [f"optimizer.name={name}", *(TOKENS if "ngram" in kind else ())]
    if name == "lbfgs" and kind in ("mlp", "neural-ngram"):
        with pytest.raises(ConfigError, match="convex"):
            configuration(kind, overrides)
    else:
        configuration(kind, overrides)
