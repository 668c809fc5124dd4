"""Compare initialisations of an MLP by the validation loss on six data sets.

    pip install scikit-learn
    python scripts/dev/initial_weights.py

Trains two networks on each data set, with three seeds and Adam (learning rate 1e-3),
and prints the means over the seeds of the last and of the lowest loss. The data sets
are scikit-learn's: four generated, two real. 80 % of the rows are used for training.
"""

import numpy as np
from sklearn import datasets

import pympi_train as pt
from pympi_train.models.mlp import INITS

NETWORKS = ([100], [64, 64, 64])
SEEDS = range(3)


def data_sets():
    """Yield name, task, features, targets, epochs and batch size."""
    make = datasets.make_classification
    x, y = make(200_000, 40, n_informative=20, n_redundant=10, random_state=0)
    yield "two classes, 160,000 rows", "classification", x, y, 20, 200
    how = {"n_informative": 20, "n_classes": 10, "n_clusters_per_class": 3}
    x, y = make(40_000, 30, **how, random_state=1)
    yield "ten classes, 32,000 rows", "classification", x, y, 40, 200
    x, y = datasets.make_hastie_10_2(12_000, random_state=0)
    yield "Hastie 10.2, 9,600 rows", "classification", x, y > 0, 60, 100
    x, y = datasets.load_digits(return_X_y=True)
    yield "digits, 1,437 rows", "classification", x, y, 100, 32
    x, y = datasets.make_friedman1(20_000, noise=1.0, random_state=0)
    yield "Friedman 1, 16,000 rows", "regression", x, y, 50, 100
    x, y = datasets.load_diabetes(return_X_y=True)
    yield "diabetes, 353 rows", "regression", x, y, 100, 32


def split(x, y, task):
    """Return the training and the validation Dataset, features scaled."""
    if task == "regression":
        y = ((y - y.mean()) / y.std())[:, None].astype(np.float32)
    else:
        y = y.astype(int)
    rows = np.random.default_rng(0).permutation(len(x))
    train, held = np.split(rows, [int(0.8 * len(x))])
    mean, scale = x[train].mean(axis=0), x[train].std(axis=0)
    x = ((x - mean) / np.where(scale == 0, 1, scale)).astype(np.float32)
    return [pt.Dataset.split(x[part], y[part]) for part in (train, held)]


def losses(init, hidden, task, train, held, epochs, batch_size):
    """Return the means over the seeds of the last and of the lowest validation loss."""
    n_outputs = int(train.y.max()) + 1 if task == "classification" else 1
    found = []
    for seed in SEEDS:
        model = pt.MLP(train.x.shape[1], hidden, n_outputs, task=task, init=init)
        how = {"batch_size": batch_size, "seed": seed, "l2": 1e-4 / batch_size}
        with pt.Trainer(model, pt.Adam(lr=1e-3), **how) as trainer:
            history = trainer.fit(train, held, epochs=epochs)
        of_epochs = [record["validation_loss"] for record in history]
        found.append((of_epochs[-1], min(of_epochs)))
    return np.mean(found, axis=0)


def main():
    print("| data | hidden | start | last loss | least loss |\n|---|---|---|---|---|")
    for name, task, x, y, *how in data_sets():
        sets = split(x, y, task)
        for hidden in NETWORKS:
            for init in INITS:
                last, least = losses(init, hidden, task, *sets, *how)
                print(f"| {name} | {hidden} | {init} | {last:.4f} | {least:.4f} |")


if __name__ == "__main__":
    main()
