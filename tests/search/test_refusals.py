"""Bad input: one error, before anything starts."""

import numpy as np
import pytest
from searches import searched

from pympi_train.errors import ConfigError, DataError

BAD = {
    "no parameter": ([], {}, "nothing to search"),
    "unknown key": (["model.l3=1"], {}, "unknown key 'l3'; did you mean 'l2'"),
    "a value": (["model.l2=0,-1"], {}, "model.l2=-1: .* must be at least 0"),
    "a type": (["train.epochs=2.5"], {}, "must be an integer"),
    "same": (["model.l2=1e-3,0.001"], {}, "two trials are the same"),
    "combination": (
        ["optimizer.momentum=0.9"],
        {},
        "momentum and nesterov are for sgd",
    ),
    "trials": (["model.l2=0,1"], {"method": "random"}, "needs --trials"),
    "too many": (["model.l2=0,1"], {"method": "random", "trials": 5}, "only 2"),
    "grid of N": (["model.l2=0,1"], {"trials": 5}, "--trials is for"),
    "folds": (["model.l2=0,1"], {"folds": 62}, "62 are more than the 61 rows"),
    "class": (["model.l2=0,1"], {"folds": 15}, "misses fold .* of 15; it has 2"),
    "stratified": (
        ["model.l2=0,1"],
        {"folds": 21, "set": ["data.split=stratified", "data.validation=0.5"]},
        "misses fold .* of 21; it has 20 rows: ask for fewer --folds$",
    ),
    "class of other rows": (
        ["data.train=rows.npz,rare.npz"],
        {},
        "rare.npz: the class 2 misses fold .* of 3; it has 1 rows",
    ),
    "tokens": (
        ["model.context=1,2"],
        {"set": [
            "model.kind=neural-ngram",
            "data.train=tokens.bin",
            "data.standardize=false",
            "data.window=8",
        ]},
        "--folds 0 compares by",
    ),
    "no such rows": (["data.train=rows.npz,none.npz"], {}, "none.npz"),
    "no rows": (["model.l2=0,1"], {"folds": 1}, "needs rows that are held out"),
    "metric": (
        ["model.l2=0,1"],
        {"metric": "r2"},
        "--metric r2: expected loss or accuracy, ",
    ),
    "monitor of folds": (
        ["model.l2=0,1"],
        {"set": ["train.monitor=accuracy"]},
        "set .data. validation, .*; --folds of a search take the place of a fraction",
    ),
    "rates of lbfgs": (
        ["optimizer.learning_rate=0.1,1", "optimizer.name=sgd,lbfgs"],
        {},
        "lbfgs has no learning rate, so trials would be equal",
    ),
    "gpus": (["train.backend=numpy,cuda"], {}, "have 0: start it on nodes with GPUs"),
    "one se": (["train.seed=1,2"], {"one_se": True}, "which model is simpler"),
    "ranks": (["model.l2=0"], {"min_ranks": 2}, "at least 2 ranks"),
    "ranks of a later trial": (
        ["parallel.strategy=allreduce,server"],
        {},
        r"at least 2 ranks \(\[parallel\] servers = 1\)",
    ),
    "rungs": (["train.epochs=1,2"], {"method": "halving"}, "sets train.epochs"),
    "group": (
        ["model.l2=0"],
        {"set": ["data.train=groups.csv", "data.group=g", "data.validation=0.5"]},
        "there must be more groups than folds",
    ),
    "class of another seed": (
        ["train.seed=2,1"],
        {"folds": 2, "set": ["data.train=few.csv", 'data.drop=["g", "w"]']},
        "few.csv: the class 'b' misses fold 1 of 2",
    ),
    "weights of 0": (
        ["model.l2=0"],
        {"folds": 2, "set": ["data.train=few.csv", "data.drop=g", "data.weights=w"]},
        "few.csv: all rows in fold 0 of 2 have weight 0: ask for fewer --folds",
    ),
    "a category of one fold": (
        ["model.l2=0"],
        {
            "folds": 2,
            "set": ["data.train=few.csv", "data.drop=w", "data.categorical=g"],
        },
        "few.csv: all rows with 'c' in the column 'g' are in fold 0 of 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_starts(alone, folder, case):
    rows = "".join(f"{i},{'ab'[i % 2]},{i // 2 % 2}\n" for i in range(40))
    (folder / "groups.csv").write_text("x,g,y\n" + rows)
    # By seed 1, rows 0 and 2 are in folds 1 and 0; by seeds 0 and 2 not.
    folds = [1, 0, 0, 1, 0, 1, 1, 0]  # by seed 0
    rows = [
        f"{i},{'aacaaaaa'[i]},{w},{'babaaaaa'[i]}\n" for i, w in enumerate(folds)
    ]
    (folder / "few.csv").write_text("x,g,w,y\n" + "".join(rows))
    labels = [0, 1] * 20 + [2]
    np.savez(folder / "rare.npz", X=np.ones((41, 3)), y=labels)
    param, how, said = BAD[case]
    with pytest.raises((ConfigError, DataError), match=said) as info:
        searched(alone, folder, *param, **how)
    assert "\n" not in str(info.value)
    assert not (folder / "out").exists()


def test_tpe_refuses_any_combination(alone, folder):
    """Each value alone is possible: only adam with momentum is not."""
    pytest.importorskip("optuna")
    param = "optimizer.name=adam,sgd", "optimizer.momentum=0,0.9"
    with pytest.raises(ConfigError, match="momentum and nesterov are for sgd"):
        searched(alone, folder, *param, method="tpe", trials=2)
    assert not (folder / "out").exists()


def test_tpe_without_optuna(alone, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'pympi-train\[search\]'"):
        searched(alone, folder, "model.l2=0,1", method="tpe", trials=2)
