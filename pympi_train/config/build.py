"""Models and optimizers from a configuration."""

from pympi_train.errors import DataError
from pympi_train.models.linear import Linear
from pympi_train.models.logistic import Logistic
from pympi_train.models.mlp import MLP
from pympi_train.models.neural_ngram import NeuralNGram
from pympi_train.models.softmax import Softmax
from pympi_train.optim.adagrad import AdaGrad
from pympi_train.optim.adam import Adam, AdamW
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.optim.schedule import Constant, Cosine, StepDecay
from pympi_train.optim.sgd import GD, SGD


def build_model(model, schema):
    """Return the model of the section ``[model]``, for data of this schema.

    Parameters
    ----------
    model : ModelConfig
    schema : Schema or TokenSchema
        Gives the numbers of features, classes and targets, or of tokens.

    Raises
    ------
    DataError
        If the data have too few classes, or logistic regression has other than two.
    """
    common = {"dtype": model.dtype}
    if model.kind == "neural-ngram":
        return NeuralNGram(
            schema.n_tokens,
            model.context,
            width=model.embedding,
            hidden=model.hidden,
            activation=model.activation,
            init=model.init,
            **common,
        )
    n_features = schema.n_features
    n_classes = None if schema.classes is None else len(schema.classes)
    if n_classes is not None and n_classes < 2:
        raise DataError(
            f"classification needs two classes or more, got {n_classes}: "
            f"{schema.classes.tolist()}"
        )
    if model.kind == "linear":
        return Linear(n_features, schema.n_targets, intercept=model.intercept, **common)
    if model.kind == "logistic":
        if n_classes != 2:
            raise DataError(
                f"logistic regression is for two classes, the data have {n_classes}; "
                'use [model] kind = "softmax"'
            )
        return Logistic(n_features, intercept=model.intercept, **common)
    if model.kind == "softmax":
        return Softmax(n_features, n_classes, intercept=model.intercept, **common)
    return MLP(
        n_features,
        model.hidden,
        n_classes or schema.n_targets,
        activation=model.activation,
        task=model.task,
        init=model.init,
        **common,
    )


def build_optimizer(optimizer):
    """Return the optimizer of the section ``[optimizer]``."""
    o = optimizer
    if o.name == "gd":
        return GD(o.learning_rate)
    if o.name == "sgd":
        return SGD(
            o.learning_rate,
            momentum=o.momentum,
            nesterov=o.nesterov,
            weight_decay=o.weight_decay,
        )
    if o.name == "lbfgs":
        return LBFGS(history=o.history, tolerance=o.tolerance)
    if o.name == "adagrad":
        return AdaGrad(o.learning_rate, eps=o.eps, weight_decay=o.weight_decay)
    kind = Adam if o.name == "adam" else AdamW
    return kind(
        o.learning_rate,
        betas=(o.beta1, o.beta2),
        eps=o.eps,
        weight_decay=o.weight_decay,
    )


def build_schedule(optimizer):
    """Return the learning-rate schedule of the section ``[optimizer]``."""
    warmup = optimizer.warmup_epochs
    if optimizer.schedule == "step":
        return StepDecay(optimizer.step_epochs, optimizer.gamma, warmup)
    if optimizer.schedule == "cosine":
        return Cosine(optimizer.floor, warmup)
    return Constant(warmup)
