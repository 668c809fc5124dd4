"""Which configurations lanes apply to."""

import pytest

from pympi_train.config.config import parse
from pympi_train.lanes.applies import why_not_lanes

BASE = '[data]\ntrain = "a.npz"\n[model]\nkind = "logistic"\n'


@pytest.mark.parametrize(
    "changes, folds, reason",
    [
        ("optimizer.name=adam", 5, None),
        ("optimizer.name=lbfgs", 5, None),
        ("parallel.reduction=exact", 5, None),
        ("data.missing=mean", None, None),
        ("data.missing=mean", 5, "missing"),
        ("model.class_weights=balanced", 5, "class weights"),
        ("data.oversample=balanced", 5, "oversample"),
        ("data.ordinal=a data.rare_categories=2", 5, "rare_categories"),
        ("data.ordinal=a data.rare_categories=2", None, None),
        ("data.sparse=true data.standardize=true parallel.reduction=exact", 5, None),
        ("model.kind=mlp", None, "linear, logistic or softmax"),
        ("model.kind=linear data.standardize=true", None, None),
        ("model.kind=linear data.standardize=true", 5, "standardize_target = false"),
        ("model.kind=linear data.standardize_target=true", 5, "targets"),
        (
            "model.kind=linear data.standardize=true data.standardize_target=false",
            5,
            None,
        ),
        ("data.standardize=true", 5, None),
        ("parallel.strategy=sharded", None, "strategy"),
        ("parallel.compression=int8", None, "compressed"),
        ("train.patience=3", None, "patience"),
        ("train.backend=cuda", None, "GPU"),
        ("train.init=other", None, "init"),
    ],
)
def test_reasons(changes, folds, reason):
    config = parse(BASE, overrides=changes.split())
    found = why_not_lanes(config, folds=folds)
    assert found is None if reason is None else reason in found
