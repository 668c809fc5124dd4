"""A custom model: Poisson regression, for counts.

Run it on one rank or on several; the result is the same:

    python examples/poisson.py
    mpirun -n 4 python examples/poisson.py

Counts y are modelled as Poisson variables whose mean is exp(eta), eta = x w + b. The
negative log-likelihood of a row, without the term that does not depend on w or b, is

    loss = exp(eta) - y eta,        d loss / d eta = exp(eta) - y.

The model is implemented twice: as a class with the interface of models, and as a plain
function. Either way, three rules make it exact on any number of ranks:

* Return the *sum* of the losses over the rows of the batch, and the gradient of that
  sum. The training loop adds up the ranks' sums and divides once by the weight of the
  whole batch.
* Make no MPI call: the rows that you receive are this rank's share of the batch.
* Accept a batch without rows: NumPy's sums over no rows are zero, as they should be.

``pt.check_model`` checks your model for all of them.
"""

import numpy as np

import pympi_train as pt

TRUE_WEIGHT, TRUE_INTERCEPT = np.array([0.5, -0.3, 0.8]), 0.2


class PoissonRegression(pt.Model):
    """Poisson regression with a log link, as a class.

    Parameters
    ----------
    n_features : int
        Number of columns of ``x``.
    """

    def __init__(self, n_features):
        tensors = [
            pt.Tensor("weight", (n_features,)),
            pt.Tensor("intercept", (1,), is_weight=False),  # no L2 on it
        ]
        self.layout = pt.Layout(tensors, "float64")
        self._x = self._error = None

    def loss(self, params, batch):
        weight, intercept = params  # views, in the order of the layout
        eta = batch.x @ weight + intercept
        mean = np.exp(eta)
        losses, self._error = mean - batch.y * eta, mean - batch.y
        if batch.weights is not None:
            losses *= batch.weights
            self._error *= batch.weights
        self._x = batch.x  # for gradient()
        return float(losses.sum())

    def gradient(self, params, grads):
        grads[0][...] = self._x.T @ self._error
        grads[1][...] = self._error.sum()

    def predict(self, params, x):
        weight, intercept = params
        return (x @ weight + intercept)[:, None]  # eta, shape (k, 1)


def poisson(params, batch, grads):
    """Poisson regression as a function: return the loss sum, write its gradient.

    Sample weights are omitted; the class supports them.
    """
    eta = batch.x @ params["weight"] + params["intercept"]
    mean = np.exp(eta)
    grads["weight"][...] = batch.x.T @ (mean - batch.y)
    grads["intercept"][...] = (mean - batch.y).sum()
    return (mean - batch.y * eta).sum()


def make_models(n_features):
    """Return the same model twice: an instance of the class, and from the function."""
    from_class = PoissonRegression(n_features)
    tensors = from_class.layout.tensors
    return from_class, pt.FunctionModel(tensors, poisson, dtype="float64")


def make_counts(n_rows, seed=0):
    """Return synthetic features and counts, shapes (n_rows, 3) and (n_rows,)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, len(TRUE_WEIGHT)))
    y = rng.poisson(np.exp(x @ TRUE_WEIGHT + TRUE_INTERCEPT))
    return x, y.astype(np.float64)


def train(model, x, y, epochs, comm=None):
    """Return the loss per row and the weights by name. Collective."""
    data = pt.Dataset.split(x, y, comm=comm)  # each rank keeps its rows
    optimizer = pt.Adam(lr=0.01)
    with pt.Trainer(model, optimizer, batch_size=100, comm=comm) as trainer:
        history = trainer.fit(data, epochs=epochs)
        weights = {name: view.copy() for name, view in trainer.weights().items()}
    return history[-1]["train_loss"], weights


def main():
    from mpi4py import MPI

    x, y = make_counts(n_rows=5000)
    for model in make_models(x.shape[1]):
        pt.check_model(model, pt.Batch(x[:20], y[:20]))
        loss, weights = train(model, x, y, epochs=10)
        if MPI.COMM_WORLD.rank == 0:
            print(f"{type(model).__name__}: loss {loss:.4f} a row")
            print(f"  weight {weights['weight'].round(2)}, made with {TRUE_WEIGHT}")
            print(f"  intercept {weights['intercept'].round(2)}, {TRUE_INTERCEPT}")


if __name__ == "__main__":
    main()
