"""Invalid combinations of configuration keys, each with the reason.

A single table, which is tested as a table. docs/configuration.md is generated from it.
"""

import os

from pympi_train.config.token_rules import TOKEN_RULES
from pympi_train.data.formats.read import needs_target_file
from pympi_train.data.loading.options import DATA_RULES
from pympi_train.parallel.settings import (
    CUDA_RULES,
    HALF_RULES,
    NOT_BALANCED,
    PARALLEL_RULES,
)
from pympi_train.train.setup.noise_rules import NOISE_RULES

CPU_BACKENDS = ("numpy", "numba")

RULES = (
    *TOKEN_RULES,
    (
        "lbfgs is for the convex models: linear, logistic, softmax",
        lambda c: c.optimizer.name == "lbfgs"
        and c.model.kind not in ("linear", "logistic", "softmax"),
    ),
    (
        "lbfgs finds its own steps: schedule, warmup_epochs and clip_norm have no "
        "meaning there",
        lambda c: c.optimizer.name == "lbfgs"
        and (
            c.optimizer.schedule != "constant"
            or c.optimizer.warmup_epochs > 0
            or c.optimizer.clip_norm is not None
        ),
    ),
    (
        "momentum and nesterov are for sgd",
        lambda c: c.optimizer.name != "sgd"
        and (c.optimizer.momentum > 0 or c.optimizer.nesterov),
    ),
    (
        "nesterov needs momentum above 0",
        lambda c: c.optimizer.nesterov and c.optimizer.momentum == 0,
    ),
    (
        "weight_decay is for sgd, adam, adamw and adagrad; [model] l2 works with all",
        lambda c: c.optimizer.name in ("gd", "lbfgs") and c.optimizer.weight_decay > 0,
    ),
    (
        "class_weights are for classification",
        lambda c: c.model.class_weights is not None and c.task == "regression",
    ),
    (
        "standardize_target is for regression",
        lambda c: c.data.standardize_target and c.task == "classification",
    ),
    (
        'class_weights must be "balanced" or a table of label = weight',
        lambda c: isinstance(c.model.class_weights, str)
        and c.model.class_weights != "balanced",
    ),
    (
        "class_weights must not be negative",
        lambda c: isinstance(c.model.class_weights, dict)
        and any(not weight >= 0 for weight in c.model.class_weights.values()),
    ),
    (
        "monitor accuracy is for classification and language",
        lambda c: c.train.monitor == "accuracy" and c.task == "regression",
    ),
    (
        "monitor rmse and r2 are for regression",
        lambda c: c.train.monitor in ("rmse", "r2") and c.task != "regression",
    ),
    (
        "target of monitor accuracy or r2 is a share, at most 1: 0.95, not 95",
        lambda c: c.train.monitor in ("accuracy", "r2")
        and c.train.target is not None
        and c.train.target > 1,
    ),
    (
        "monitor needs validation rows: set [data] validation, or monitor train_loss; "
        "--folds of a search take the place of a fraction, but the best configuration "
        "is trained without them",
        lambda c: c.train.monitor not in ("auto", "train_loss")
        and c.data.validation is None,
    ),
    (
        "validation_features and validation_target are for a file of validation rows",
        lambda c: not isinstance(c.data.validation, (str, list))
        and (c.data.validation_target or c.data.validation_features),
    ),
    (
        "features in .npy format need target, the .npy file of their targets",
        lambda c: needs_target_file(c.data.train, c.data.format)
        and os.path.basename(str(c.data.target)) == "y",  # the default, resolved
    ),
    (
        "validation in .npy format needs validation_target, the file of its target",
        lambda c: needs_target_file(c.data.validation, c.data.format)
        and c.data.validation_target is None,
    ),
    (
        "sparse rows are computed in full precision: leave sparse or precision out",
        lambda c: c.data.sparse and c.train.precision != "full",
    ),
    (
        "oversample and class_weights both make up for rare classes: leave one out",
        lambda c: c.data.oversample is not None and bool(c.model.class_weights),
    ),
    *(
        (
            reason,
            lambda c, is_broken=is_broken: is_broken(
                c.data, c.task == "classification"
            ),
        )
        for reason, is_broken in DATA_RULES
    ),
    *PARALLEL_RULES,
    *(
        (
            f"backend cuda: {reason}",
            lambda c, broken=broken: c.train.backend == "cuda" and broken(c),
        )
        for reason, broken in CUDA_RULES
    ),
    *HALF_RULES,
    *NOISE_RULES,
    (
        "precision float16 and bfloat16 are for backend cuda",
        lambda c: c.train.precision != "full" and c.train.backend in CPU_BACKENDS,
    ),
    (
        "precision float16 and bfloat16 keep parameters in [model] dtype float32",
        lambda c: c.train.precision != "full" and c.model.dtype != "float32",
    ),
    (
        "transport is for backend cuda: elsewhere gradients lie where MPI reads them",
        lambda c: c.parallel.transport != "auto" and c.train.backend in CPU_BACKENDS,
    ),
    (
        NOT_BALANCED,
        lambda c: c.elastic.balance and c.parallel.strategy == "local",
    ),
    (
        "survive is for CPUs: a GPU that waits for a rank that died is not told",
        lambda c: c.elastic.survive and c.train.backend == "cuda",
    ),
    (
        "survive goes on with all ranks that are left, and ranks parks some: leave one "
        "out",
        lambda c: c.elastic.survive and c.elastic.ranks is not None,
    ),
)


def refusal(config):
    """Return the reason of the first rule that ``config`` breaks, or None."""
    for reason, broken in RULES:
        if broken(config):
            return reason
    return None
